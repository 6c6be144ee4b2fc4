//! Following a seed for as long as the agent runs.

use super::{
    fetch::{Follower, Outcome, SeedError, blocking},
    local::LocalSeeds,
    status::{Seed, SeedState},
};
use crate::{engines::Retired, metrics::SeedOutcome, state::AppState, tasks::timestamp};
use std::{sync::Arc, time::Duration};

/// Pause after the first failure; it doubles up to the time between two looks, or a minute.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after a failure, however seldom it looks otherwise.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Serves what lies on the volume, then looks every now and then, and whenever somebody asks, for something newer. Ends
/// when the agent stops.
pub async fn follow(state: AppState, seed: Seed, local: Arc<LocalSeeds>, every: Duration) {
    let stop = state.stop.clone();
    let follower = Follower {
        state,
        seed,
        local,
        serving: None,
        refused: None,
    };
    // Whatever is under way when the agent stops is removed by its next start.
    stop.run_until_cancelled(follower.run(every)).await;
}

impl Follower {
    async fn run(mut self, every: Duration) {
        if let Err(error) = self.resume().await {
            tracing::error!(operation = "seed", %error, "the seeds on the volume cannot be read");
        }
        let (mut wanted, mut answered, mut failures) = (self.seed.wanted(), 0, 0_u32);
        loop {
            let asked = *wanted.borrow_and_update();
            if asked > answered {
                // Who asks has perhaps mended what was wrong.
                self.refused = None;
            }
            let outcome = self.refresh().await;
            failures = match &outcome {
                Err(error) if !error.is_refusal() => failures.saturating_add(1),
                _ => 0,
            };
            let retired = self.report(outcome);
            self.seed.answer(asked);
            answered = asked;
            self.settle(retired).await;
            tokio::select! {
                () = tokio::time::sleep(pause(failures, every)) => {}
                changed = wanted.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Tells everybody what came of a look.
    fn report(&self, outcome: Result<Outcome, SeedError>) -> Option<Retired> {
        let before = self.seed.status().error;
        let (word, error, retired) = match outcome {
            Ok(Outcome::Current) => ("current", None, None),
            Ok(Outcome::RefusedBefore) => ("current", before.clone(), None),
            Ok(Outcome::Swapped(retired)) => ("swapped", None, retired),
            Err(error) if error.is_refusal() => ("refused", Some(error.to_string()), None),
            Err(error) => ("failed", Some(error.to_string()), None),
        };
        let labels = SeedOutcome {
            seed: self.seed.key().to_string(),
            outcome: word,
        };
        self.state.metrics.seeds.looks.get_or_create(&labels).inc();
        if let Some(error) = error.as_ref().filter(|error| before.as_ref() != Some(*error)) {
            // Once, and not at every look: an object store that is away for an hour must not fill a disk.
            let (seed, serving) = (self.seed.key().as_ref(), self.serving.is_some());
            tracing::warn!(
                operation = "seed",
                seed,
                outcome = word,
                serving,
                error,
                "the newest seed is not served"
            );
        }
        self.seed.update(|status| {
            status.state = match status.served {
                Some(_) => SeedState::Ready,
                None => SeedState::Waiting,
            };
            if word != "failed" {
                status.checked_at = Some(timestamp());
            }
            status.error = error;
        });
        retired
    }

    /// Waits for the last statements on the seed that was served before, gives the present one its memory, and removes what
    /// is not needed any more.
    async fn settle(&self, retired: Option<Retired>) {
        let Some(serving) = &self.serving else { return };
        if let Some(retired) = retired {
            retired.gone().await;
        }
        match self.state.engines.widen(&serving.id).await {
            Ok(Some(cramped)) => cramped.gone().await,
            Ok(None) => {}
            // Others have it. The next look tries again.
            Err(error) => tracing::debug!(operation = "seed", graph = %serving.id, %error, "no more memory yet"),
        }
        let (local, key, kept) = (
            Arc::clone(&self.local),
            self.seed.key().clone(),
            serving.directory.clone(),
        );
        if let Err(error) = blocking(move || local.keep_only(&key, &kept)).await {
            tracing::warn!(operation = "seed", %error, "an old seed is removed later");
        }
    }
}

/// Half to all of it, so that a fleet does not ask at the same moment.
fn pause(failures: u32, every: Duration) -> Duration {
    let pause = match failures {
        0 => every,
        n => FIRST_PAUSE
            .saturating_mul(1 << (n - 1).min(16))
            .min(every.min(LONGEST_PAUSE)),
    };
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_repeated_soon_and_then_ever_later() {
        let every = Duration::from_secs(30);
        for (failures, longest) in [(0, 30), (1, 1), (3, 4), (20, 30), (u32::MAX, 30)] {
            let longest = Duration::from_secs(longest);
            for _ in 0..50 {
                let pause = pause(failures, every);
                assert!(pause <= longest && pause * 2 >= longest, "{failures}: {pause:?}");
            }
        }
        assert!(pause(9, Duration::from_secs(86_400)) <= LONGEST_PAUSE);
    }
}
