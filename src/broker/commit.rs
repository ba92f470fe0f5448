//! Commits: from a new state to the events of its subscribers (docs/protocol.md#events,
//! docs/differences.md#9-no-missed-events, docs/differences.md#delivery).
//!
//! In goes a new state; out come events, delivered in slices with other inputs between them. Three
//! invariants hold. The author's outbox is held until the end of the fan-out, so all events of an
//! update precede its answer. A later message to a subscriber is queued after its event, unless it lags.
//! The next change begins after this one is delivered or recorded as lag.

use std::sync::Arc;

use crate::state::{
    ChangeSet, Instance, Node, Tree, WORKLOAD_STATES, follow_workloads, update::Updated,
    weight_after,
};

use super::{
    Broker, Delivery, Output, PeerId, SubscriptionId,
    fanout::{Event, FanOut, event_body},
    outbox::Kind,
    peer_kind::PeerKind,
    subscriptions::{GroupId, Subscription, Touched},
};

impl Broker {
    /// Commits an update. Returns the instances ended and started by it.
    pub(super) fn commit_update(
        &mut self,
        updated: &Updated,
        author: Option<PeerId>,
    ) -> (Vec<Instance>, Vec<Instance>) {
        let (ended, started) = updated.instances();
        let mut tree = updated.tree.clone();
        if let Some(states) = tree.get(&[WORKLOAD_STATES]).and_then(Node::as_map) {
            // A linked agent reports the end of its instances itself; their states stay until then.
            let (scheduled, gone): (Vec<_>, Vec<_>) =
                ended.iter().cloned().partition(|instance| !instance.agent.is_empty());
            let gone = if self.link.is_some() { gone } else { [scheduled, gone].concat() };
            let states = follow_workloads(states, &gone, &started);
            tree = tree.with(WORKLOAD_STATES, Some(Node::Map(states)));
        }
        self.commit(tree, author);
        (ended, started)
    }

    /// Makes `tree` the current state, and begins the fan-out of the difference.
    pub(super) fn commit(&mut self, tree: Tree, author: Option<PeerId>) {
        // Before the swap: the events of the last change are made from the state it led to.
        self.finish_fanout();
        let old = std::mem::replace(&mut self.state, tree);
        self.state_bytes = weight_after(&old, self.state_bytes, &self.state);
        self.version += 1;
        self.read_cache.clear();
        let changes = ChangeSet::between(&old, &self.state);
        let Touched { groups, unseen, .. } = self.subscriptions.touched(&changes);
        if unseen {
            // The last one is enough: no snapshot from before it is reused.
            self.unseen = self.version;
        }
        if !groups.is_empty() {
            // Held here, not where the answer is queued: so no caller can let the answer out before the
            // events of its update.
            self.hold(author);
            self.fanout = Some(FanOut::new(old, changes, groups, author));
        }
    }

    /// Keeps the messages to the author of a change in its outbox, until all events are handed out.
    fn hold(&mut self, author: Option<PeerId>) {
        if let Some(peer) = author.and_then(|author| self.peers.get_mut(author)) {
            peer.held = true;
        }
    }

    /// Ends the hold, at the end of the fan-out.
    fn release(&mut self, author: Option<PeerId>) {
        let Some(author) = author else { return };
        if let Some(peer) = self.peers.get_mut(author) {
            peer.held = false;
        }
        // A flush that finds a held outbox takes it off the queue: no other flush would come.
        self.flush_outbox(author);
    }

    /// True while subscribers of the last change are not yet handled.
    #[must_use]
    pub fn is_fanning_out(&self) -> bool {
        self.fanout.is_some()
    }

    /// Ends the fan-out of the last change. Up to `most_at_once` work is done now, as the next change
    /// waits for it; the remaining subscribers fall behind and get one event for both changes.
    fn finish_fanout(&mut self) {
        let mut left = self.config.most_at_once;
        while self.is_fanning_out() && left > 0 {
            left = left.saturating_sub(self.deliver_some(self.config.slice));
        }
        let Some(mut fanout) = self.fanout.take() else { return };
        while let Some((_, members)) = fanout.advance(&self.subscriptions, usize::MAX) {
            for id in members {
                // Some got their event ahead of their turn, with another message.
                if self.awaits(id) {
                    self.fall_behind(id, fanout.old());
                    self.mark_dirty_of(id);
                }
            }
        }
        self.release(fanout.author());
    }

    /// True if the current version is not yet handled for a subscription.
    fn awaits(&self, id: SubscriptionId) -> bool {
        self.subscriptions.get(id).is_some_and(|own| own.awaits(self.version))
    }

    /// Marks the outbox of a subscriber as dirty: it may have room to catch up.
    fn mark_dirty_of(&mut self, id: SubscriptionId) {
        let Some(to) = self.subscriptions.get(id).map(Subscription::peer) else { return };
        if let Some(peer) = self.peers.get_mut(to) {
            self.dirty.note(to, peer);
        }
    }

    /// Delivers the last change to more subscribers, for about `work`. Returns the work done.
    pub(super) fn deliver_some(&mut self, work: usize) -> usize {
        let Some(mut fanout) = self.fanout.take() else { return 0 };
        // At least 1: with a configured slice of 0, `finish_fanout` would never end.
        let (work, mut done) = (work.max(1), 0);
        while done < work {
            // Few members at a time: a group may have thousands, and each takes a share of the slice.
            let wanted = work - done;
            let Some((group, members)) = fanout.advance(&self.subscriptions, wanted) else { break };
            // The end of a group counts too: a change may affect thousands of groups without a member.
            let ends = usize::from(members.len() < wanted);
            done += members.len() + ends + self.deliver(&mut fanout, group, &members);
        }
        let (author, over) = (fanout.author(), fanout.is_over());
        self.fanout = (!over).then_some(fanout);
        // The events queued for others come out before the answer of the author.
        self.flush_outboxes();
        if over {
            self.release(author);
        }
        done
    }

    /// Delivers the last change to one peer ahead of its turn: another message to it is queued next.
    /// Returns true if any delivery was due.
    pub(super) fn deliver_pending(&mut self, peer: PeerId) -> bool {
        let Some(fanout) = &self.fanout else { return false };
        let Some(peer) = self.peers.get(peer) else { return false };
        let own = peer.subscriptions.values().filter(|id| self.awaits(**id));
        let own = own.filter_map(|id| Some((self.subscriptions.get(*id)?.group(), *id)));
        let awaited: Vec<_> = own.filter(|(group, _)| fanout.awaits(*group)).collect();
        let mut left = self.config.most_at_once;
        for (group, id) in &awaited {
            let Some(mut fanout) = self.fanout.take() else { break };
            // One peer may have many costly subscriptions: beyond the bound they fall behind.
            if left > 0 {
                left = left.saturating_sub(1 + self.deliver(&mut fanout, *group, &[*id]));
            } else {
                self.fall_behind(*id, fanout.old());
            }
            self.fanout = Some(fanout);
        }
        !awaited.is_empty()
    }

    /// Delivers the last change to some members of a group, each at most once. Returns the work of
    /// encoding their event. Its body is shared, so it is charged as one for a workload even if the agent
    /// is among the members.
    fn deliver(
        &mut self,
        fanout: &mut FanOut,
        group: GroupId,
        members: &[SubscriptionId],
    ) -> usize {
        let Some((masks, all)) = self.subscriptions.group_mut(group) else { return 0 };
        let (mut work, mut event) = (0, fanout.take_event(group));
        let (mut late, mut deliveries) = (Vec::new(), Vec::with_capacity(members.len()));
        for id in members {
            let awaits = |own: &&mut Subscription| own.awaits(self.version);
            let Some(subscription) = all.get_mut(id).filter(awaits) else { continue };
            let to = subscription.peer();
            let Some(peer) = self.peers.get_mut(to) else { continue };
            let has_room = peer.has_room(to.kind(), &self.config.limits, &self.memory);
            // To a lagging one this event would come before the merged event of earlier changes.
            if !has_room || !subscription.is_up_to_date() {
                late.push(*id);
                continue;
            }
            let made = || {
                let (body, own) = event_body(fanout.changes(), masks, &self.state);
                work = own;
                Event::of(body, |body| self.memory.charge(PeerKind::Workload, body))
            };
            let body = match event.get_or_insert_with(made) {
                Event::Nothing => {
                    subscription.note_invisible(self.version);
                    continue;
                }
                Event::Made(body) => body,
                // Marked below: its outbox may be empty, and then no notice would flush it.
                Event::NoRoom => {
                    late.push(*id);
                    self.dirty.note(to, peer);
                    continue;
                }
            };
            subscription.note_event(self.version);
            let request_id = Arc::clone(subscription.request_id());
            if let Some((seq, ack)) = peer.pass_event(to.kind(), self.config.window) {
                deliveries.push(Delivery { peer: to, seq, request_id, ack });
            } else {
                let message = to.kind().response(request_id, body.clone());
                self.dirty.push(to, peer, message, Kind::Event(*id), self.now);
            }
        }
        self.end_delivery(fanout, group, event, deliveries, late);
        #[cfg(test)]
        (self.work_done += members.len() + work);
        work
    }

    /// Hands out the events that skip the queue, keeps the group's event, and lets members without room
    /// fall behind.
    fn end_delivery(
        &mut self,
        fanout: &mut FanOut,
        group: GroupId,
        event: Option<Event>,
        deliveries: Vec<Delivery>,
        late: Vec<SubscriptionId>,
    ) {
        if let Some(Event::Made(body)) = event.as_ref().filter(|_| !deliveries.is_empty()) {
            self.outputs.push_back(Output::Multicast { body: body.clone(), deliveries });
        }
        fanout.keep_event(group, event);
        late.into_iter().for_each(|id| self.fall_behind(id, fanout.old()));
    }
}
