//! The threads on which Lance works: its futures compute between their waits, and must not keep requests waiting that
//! have nothing to do with vectors.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;

use super::super::error::EngineError;

/// Beside these, Lance has threads of its own for computing: as many as there are processors, less two, but at least one.
const THREADS: usize = 2;

#[derive(Debug)]
pub(crate) struct Pool(Option<Runtime>);

impl Pool {
    pub(crate) fn start() -> Result<Self, EngineError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("lance")
            .enable_all()
            .build();
        runtime
            .map(|runtime| Self(Some(runtime)))
            .map_err(|error| EngineError::internal(format!("no threads for vectors: {error}")))
    }

    /// Works on `work` until it is done. It is stopped when the caller goes away.
    pub(crate) async fn run<T, W>(&self, work: W) -> Result<T, EngineError>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, EngineError>> + Send + 'static,
    {
        let Some(runtime) = &self.0 else {
            return Err(EngineError::internal("the threads for vectors have ended"));
        };
        match AbortOnDropHandle::new(runtime.spawn(work)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(EngineError::internal(format!("the work on vectors broke off: {error}"))),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting is not permitted where this may be dropped.
            runtime.shutdown_background();
        }
    }
}

/// Runs what waits for the disk. A panic is an error: what is read may come from elsewhere.
pub(crate) async fn blocking<T, W>(work: W) -> Result<T, EngineError>
where
    T: Send + 'static,
    W: FnOnce() -> Result<T, EngineError> + Send + 'static,
{
    let guarded = move || {
        catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(EngineError::internal("the work on the files of vectors broke off")))
    };
    tokio::task::spawn_blocking(guarded)
        .await
        .unwrap_or_else(|error| Err(EngineError::internal(format!("the work on files broke off: {error}"))))
}
