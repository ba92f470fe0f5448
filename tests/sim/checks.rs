//! The promises that hold after every step, and those at the end of a world.

use fifogate::{
    broker::Tick,
    internal::WorkloadReport,
    pb::{
        ank_base::response::ResponseContent,
        control_api::{FromAnkaios, from_ankaios::FromAnkaiosEnum},
    },
    state::convert,
};
use serde_json::Value;

use super::{
    pbs,
    peer::{Expected, Peer},
    server::Seen,
    tree,
    world::{World, instance_of},
};

impl World {
    /// What holds after every step.
    pub(crate) fn check(&self, reports: &[WorkloadReport]) {
        let (sure, budget) = self.budget();
        let most = self.config.window as u64 + 1;
        for report in reports {
            let peer = &self.peers[&self.peer_of(&instance_of(report)).unwrap()];
            let who = peer.instance.text();
            let out = peer.handed - peer.told_written;
            assert!(out <= most, "{who} has {out} messages that are not written");
            assert!(peer.owes_nothing() || out == most, "{who} could be sent more");
            let (events, others, all_known) = peer.bytes_due();
            let queued = report.queued_bytes;
            assert!(queued >= events + others, "{who}: {queued} bytes reported");
            assert!(!all_known || queued == events + others, "{who}: {queued} bytes reported");
            let bound = budget + peer.largest_event_due();
            assert!(events <= bound, "{who}: {events} bytes of events wait");
            let allowed = if peer.reading { queued < budget } else { queued > sure / 2 };
            assert!(allowed, "{who} is read: {}, with {queued} bytes waiting", peer.reading);
        }
        let owed = self.peers.values().any(|peer| !peer.owes_nothing());
        assert!(!owed || !self.broker.is_drained(), "called drained");
        let flow_control = self.peers.values().flat_map(|peer| peer.subscriptions.values());
        let due = flow_control.filter_map(|own| own.live_at).filter(|at| *at > self.now).min();
        if let Some(due) = due {
            let next = self.broker.next_deadline();
            assert!(next.is_some_and(|Tick(next)| next <= due), "{next:?}, but {due} is due");
        }
    }

    /// The views that clients have made of events are what a fresh read gives.
    pub(crate) fn compare_views(&mut self) {
        for peer in self.peers.values() {
            let who = peer.instance.text();
            assert!(
                peer.owes_nothing() && peer.queued == 0 && peer.reading,
                "{who} is not drained"
            );
            for (id, own) in &peer.subscriptions {
                let fresh = tree::read(&self.state, &own.masks);
                let view = &peer.views[&own.uid];
                assert_eq!(own.view(view), own.view(&fresh), "the view of {id} at {who}");
                self.counts.one("views compared");
            }
        }
        assert!(self.broker.is_drained());
        let core = convert::to_pb(self.broker.state(), convert::Fill::Sparse);
        assert_eq!(core, pbs::complete_state(&self.state, false), "the state");
    }
}

/// No message holds a leaf that its receiver's rules do not allow. An answer was right when it was
/// made, and was checked then; an event has to be right now.
pub(crate) fn check_leaves(peer: &Peer, message: &FromAnkaios, expected: &Expected) {
    let Seen::Event(uid, event) = &expected.seen else { return };
    // What was made for a subscription that was cancelled since is out of reach for new rules.
    if !peer.subscriptions.values().any(|own| own.uid == *uid) {
        return;
    }
    let Some(FromAnkaiosEnum::Response(response)) = &message.from_ankaios_enum else { return };
    assert!(matches!(response.response_content, Some(ResponseContent::CompleteStateResponse(_))));
    assert_may_see(peer, &event.state);
}

pub(crate) fn assert_may_see(peer: &Peer, told: &Value) {
    for (path, leaf) in tree::leaves(told) {
        let fine = peer.rules.may_see(&path) || tree::comes_along(&path, told);
        assert!(fine, "{} is told {path:?} = {leaf}, by {:?}", peer.instance.text(), peer.access);
    }
}
