//! Large updates: the transactions around the head and the parts (docs/etcd.md#large-updates).

use std::{sync::Arc, time::Duration};

use etcd_client::{Compare, CompareOp, DeleteOptions, PutOptions, Txn, TxnOp, TxnResponse};
use fifogate::pb::ank_base as pb;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    LOOK_AGAIN, PATIENCE, Planned, Shared, connect,
    large::{self, Head, Staged},
    lease, plan,
    replica::Plan,
};
use crate::{model::Update, store::Refused};

/// Time for an agent to write its parts. Others wait for so long if it is killed meanwhile.
const PREPARATION: Duration = Duration::from_secs(4);
/// Time for the agent of a large update to copy its items, before others do.
const TURN: Duration = Duration::from_secs(1);
/// Age of an abandoned head at its removal. It is longer than the lease of an unfinished one.
const STALE: Duration = Duration::from_secs(15);

impl Shared {
    /// The condition that no large update is under way.
    pub(super) fn has_no_large_update(&self) -> Compare {
        Compare::create_revision(self.keys.large(), CompareOp::Equal, 0)
    }

    /// Waits until no large update is under way, as far as this agent knows.
    pub(super) async fn no_large_update(&self, deadline: Instant) -> Result<(), Refused> {
        let mut told = self.told.subscribe();
        while self.view().large.is_under_way() {
            if Instant::now() >= deadline {
                let text = "A large update of another agent is under way";
                return Err(Refused::Unavailable(text.to_owned()));
            }
            self.keys_and_values()?;
            let soon = (Instant::now() + LOOK_AGAIN).min(deadline);
            let _ = timeout_at(soon, told.changed()).await;
        }
        Ok(())
    }

    /// Does an update beyond the size of one transaction: all of it, or nothing. `None` if another agent
    /// came between.
    pub(super) async fn update_in_parts(
        self: &Arc<Self>,
        update: &Arc<Update>,
        deadline: Instant,
    ) -> Result<Option<pb::UpdateStateSuccess>, Refused> {
        let mut client = self.connection()?.client;
        let failed = |error: connect::Trouble| self.failed(&error.to_string());
        // Not this agent's own lease: a head that cannot be removed later goes away by itself.
        let lease = timeout_at(deadline, connect::grant(&mut client, PREPARATION)).await;
        let lease = lease.map_err(|_| self.failed("it does not answer"))?.map_err(failed)?;
        let prepared = self.prepare(lease, deadline).await?;
        let done = match prepared {
            Some(revision) => self.write_parts(update, revision, deadline).await,
            None => Ok(None),
        };
        // With it the head goes, unless it says that the parts count.
        tokio::spawn(async move { client.lease_revoke(lease).await });
        done
    }

    /// Writes the head, so that others wait with their updates. Returns its revision, or `None` if there is one.
    async fn prepare(&self, lease: i64, deadline: Instant) -> Result<Option<i64>, Refused> {
        let leased = Some(PutOptions::new().with_lease(lease));
        let txn = Txn::new().when([self.has_no_large_update()]).and_then([
            // Those of an agent that did not come to its end.
            self.no_parts(),
            TxnOp::put(self.keys.large(), Head::Preparing.encode(), leased),
        ]);
        let answer = self.transact(&mut self.keys_and_values()?, txn, deadline).await?;
        let revision = revision(&answer);
        // Now all that was updated before is known here, or what has come between.
        self.told(revision, deadline).await?;
        Ok(answer.succeeded().then_some(revision))
    }

    /// Computes the update from the state, which is now closed to others, writes its parts, and lets them count.
    async fn write_parts(
        self: &Arc<Self>,
        update: &Arc<Update>,
        prepared: i64,
        deadline: Instant,
    ) -> Result<Option<pb::UpdateStateSuccess>, Refused> {
        let view = self.known().await;
        if view.large.revision() != Some(prepared) {
            return Ok(None);
        }
        let Planned { plan, success } = plan(view, update.clone()).await?;
        let (staged, rest) = self.split(plan);
        if staged.is_empty() && rest.writes.is_empty() {
            return Ok(Some(success));
        }
        let mut client = self.keys_and_values()?;
        let parts = large::parts(&self.keys, staged);
        for part in &parts {
            let txn = Txn::new().when([self.is_head(prepared)]).and_then([self.operation(part)]);
            if !self.transact(&mut client, txn, deadline).await?.succeeded() {
                return Ok(None);
            }
        }
        let as_known = |(key, revision): (&String, &i64)| {
            Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision)
        };
        let when = rest.compares.iter().map(as_known).chain([self.is_head(prepared)]);
        let head = Head::Done { parts: parts.len() }.encode();
        let then = rest.writes.iter().map(|own| self.operation(own));
        let then = then.chain([TxnOp::put(self.keys.large(), head, None)]);
        let txn = Txn::new().when(when.collect::<Vec<_>>()).and_then(then.collect::<Vec<_>>());
        let answer = self.transact(&mut client, txn, deadline).await?;
        if !answer.succeeded() {
            return Ok(None);
        }
        let revision = revision(&answer);
        self.told(revision, deadline).await?;
        // All agents have it by now, or read it before anything else.
        let own = Arc::clone(self);
        tokio::spawn(async move { own.copy_parts(revision).await });
        Ok(Some(success))
    }

    /// Divides a plan into what goes into parts, and the rest. Nobody else can write items of desired state
    /// now, so they are compared with nothing.
    fn split(&self, plan: Plan) -> (Vec<Staged>, Plan) {
        let Plan { mut compares, writes } = plan;
        let guard = self.keys.guard();
        let is_desired = |key: &str| self.keys.is_desired_item(key);
        let (mut staged, mut rest) = (Vec::new(), Vec::new());
        for write in writes {
            let known = match self.keys.is_state(&write.key) {
                true => Some(compares.remove(&write.key).unwrap_or(0)),
                false if is_desired(&write.key) => None,
                false => {
                    rest.push(write);
                    continue;
                }
            };
            staged.push(Staged { write, known });
        }
        compares.retain(|key, _| !is_desired(key) && *key != guard);
        (staged, Plan { compares, writes: rest })
    }

    /// Copies the items of a large update to their keys, and removes its head and its parts. Whoever else
    /// does so at the same time writes the same.
    async fn copy_parts(&self, head: i64) -> Result<(), Refused> {
        let deadline = Instant::now() + PATIENCE;
        let mut client = self.keys_and_values()?;
        let writes = {
            let view = self.view();
            let is_new = view.large.revision() == Some(head);
            let mut writes =
                is_new.then(|| view.large.writes(&self.keys)).flatten().unwrap_or_default();
            // Nobody else writes them since.
            writes.retain(|own| own.known.is_some() || view.written(&own.write.key) < head);
            writes
        };
        for some in connect::batches(&writes, |own| &own.write) {
            let puts: Vec<_> = some.iter().map(|own| self.copy(own)).collect();
            let txn = Txn::new().when([self.is_head(head)]).and_then(puts);
            if !self.transact(&mut client, txn, deadline).await?.succeeded() {
                return Ok(());
            }
        }
        self.remove_head(head, deadline).await
    }

    /// A workload state is copied only if its agent has reported none meanwhile.
    fn copy(&self, staged: &Staged) -> TxnOp {
        let Staged { write, known } = staged;
        let copy = self.operation(write);
        let Some(known) = known else { return copy };
        let is_known = Compare::mod_revision(write.key.as_str(), CompareOp::Equal, *known);
        TxnOp::txn(Txn::new().when([is_known]).and_then([copy]))
    }

    async fn remove_head(&self, head: i64, deadline: Instant) -> Result<(), Refused> {
        let removed = [TxnOp::delete(self.keys.large(), None), self.no_parts()];
        let txn = Txn::new().when([self.is_head(head)]).and_then(removed);
        self.transact(&mut self.keys_and_values()?, txn, deadline).await.map(drop)
    }

    /// The condition that the head is still the one of a revision.
    fn is_head(&self, revision: i64) -> Compare {
        Compare::mod_revision(self.keys.large(), CompareOp::Equal, revision)
    }

    fn no_parts(&self) -> TxnOp {
        TxnOp::delete(self.keys.parts(), Some(DeleteOptions::new().with_prefix()))
    }

    /// Finishes large updates whose agents do not, for ever.
    pub(super) async fn finish_large_updates(&self) -> ! {
        loop {
            let mut told = self.told.subscribe();
            let Some(head) = self.view().large.revision() else {
                let _ = told.changed().await;
                continue;
            };
            // Random, so that not all agents do the same at once.
            if self.changes_head(head, TURN + lease::pause(20) * 20).await {
                continue;
            }
            let is_readable = self.view().large.writes(&self.keys).is_some();
            if is_readable {
                let _ = self.copy_parts(head).await;
                sleep(LOOK_AGAIN).await;
            } else if !self.changes_head(head, STALE).await {
                let key = self.keys.large();
                log::error!("{key} in etcd cannot be read, and keeps all from updates: removed");
                let _ = self.remove_head(head, Instant::now() + PATIENCE).await;
            }
        }
    }

    /// Waits until there is another head, or none; false if it stays for so long.
    async fn changes_head(&self, head: i64, time: Duration) -> bool {
        let mut told = self.told.subscribe();
        let changed = async {
            while self.view().large.revision() == Some(head) {
                let _ = told.changed().await;
            }
        };
        timeout(time, changed).await.is_ok()
    }
}

fn revision(answer: &TxnResponse) -> i64 {
    answer.header().map_or(0, |own| own.revision())
}
