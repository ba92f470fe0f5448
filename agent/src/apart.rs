//! Offloading of long computations from the agent's only thread to the blocking pool.
//!
//! Input is a closure and the number of bytes it works on; the result comes back to the caller. Small
//! work runs inline. Of larger work, each kind (planning, starting) runs one closure at a time in the
//! order of the calls, so at most two threads are busy.

use std::{future::pending, panic::resume_unwind};

use tokio::{sync::Semaphore, task};

/// Work on at most this many bytes runs inline: waking a thread takes longer.
pub const SMALL: usize = 4 << 10;

/// The size of work with a cost unknown in advance.
pub const LARGE: usize = usize::MAX;

/// Computing the state after an update or a change.
static PLANS: Semaphore = Semaphore::const_new(1);
/// Reading the configuration of workloads before their start.
static STARTS: Semaphore = Semaphore::const_new(1);

/// Computes the state after an update or a change of `bytes` bytes.
///
/// Work runs to its end once it has begun, even if the caller has gone.
pub async fn plan<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    run(&PLANS, bytes, work).await
}

/// Reads the configuration of workloads to be started, of `bytes` bytes.
pub async fn start<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    run(&STARTS, bytes, work).await
}

async fn run<T: Send + 'static>(
    kind: &'static Semaphore,
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= SMALL {
        return work();
    }
    // The semaphore is fair, so work runs in the order of the calls; it is never closed.
    let turn = kind.acquire().await;
    let done = task::spawn_blocking(move || {
        // The closure owns the permit: a dropped caller must not let the next work run beside this one.
        let _turn = turn;
        work()
    });
    match done.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime aborts a blocking task only at its own end, together with this caller.
            Err(_) => pending().await,
        },
    }
}
