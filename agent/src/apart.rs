//! Work that may take long, apart from the agent's one thread. Of each kind one piece is done at a time, in
//! the order in which they were asked for: so all of it never has more than two threads.

use std::{future::pending, panic::resume_unwind};

use tokio::{sync::Semaphore, task};

/// Less than this is done at once: to wake a thread takes longer.
pub const SMALL: usize = 4 << 10;

/// Something whose size is not known before it is done.
pub const LARGE: usize = usize::MAX;

/// Finding out the state after an update or a change.
static PLANS: Semaphore = Semaphore::const_new(1);
/// Reading what is to be started.
static STARTS: Semaphore = Semaphore::const_new(1);

/// Finds out what an update or a change makes of the state; it is of so many bytes.
///
/// Work that has begun is done to its end even if nobody waits for it any more.
pub async fn plan<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    run(&PLANS, bytes, work).await
}

/// Reads what is to be started; it is of so many bytes.
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
    let turn = kind.acquire().await;
    let done = task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    match done.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // It is aborted only when the runtime ends, and whoever waits for it.
            Err(_) => pending().await,
        },
    }
}
