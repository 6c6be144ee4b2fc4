//! The projection of nodes, graphs and volumes into DynamoDB, for clients outside of Kubernetes.
//!
//! ```text
//!  watches ─▶ changes, one for each object ─▶ rows as they should be ─▶ plan (graphplane-core) ─▶ conditional writes
//!                                             ▲                          ▲
//!                                             caches                     what the tables hold: read when it begins,
//!                                                                        then remembered
//! ```
//!
//! Nothing waits for it: tables that cannot be written delay no graph, and an object goes while its row is still there. So
//! rows are read when it begins, and once a day: by key those that should be there, and by the indexes those that should
//! not. A graph's row names its machine, and machines have an index with one value, so that no table is scanned. The rows
//! of objects that went while nobody looked are found this way.

mod subjects;
mod tables;

use crate::context::Context;
use crate::provider::aws::{AwsSettings, sdk_config};
use aws_config::SdkConfig;
use futures::{StreamExt, TryStreamExt, stream};
use graphplane_core::backoff::{Backoff, Limits};
use graphplane_core::registry::rows::BACKEND;
use graphplane_core::registry::{Kept, Key, Projection, Refusal, Row, Stage, Standing, Table, UNATTACHED, Write};
use jiff::Timestamp;
use kube::runtime::events::EventType;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use subjects::{Change, Known, Subject, changes};
use tables::{Index, TableError, Tables};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Where the registries are.
#[derive(Clone, Debug)]
pub struct Registries {
    client: aws_sdk_dynamodb::Client,
    prefix: String,
}

impl Registries {
    /// The tables `<prefix>-instance-registry`, `-graph-registry` and `-volume-registry`.
    pub fn new(config: &SdkConfig, prefix: impl Into<String>) -> Self {
        Self {
            client: aws_sdk_dynamodb::Client::new(config),
            prefix: prefix.into(),
        }
    }

    /// The tables that settings of AWS name, if they do.
    pub(crate) async fn named_by(settings: &AwsSettings) -> Option<Self> {
        let prefix = settings.registry_prefix.as_deref()?;
        Some(Self::new(&sdk_config(settings).await, prefix))
    }
}

/// Changes within this time are looked at together.
const PACE: Duration = Duration::from_millis(200);
/// The tables are read again after this time, which repairs what no change shows.
const READ_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// The tables are read again so soon after a conflict, and after twice the time when there is one again.
const READ_AFTER_CONFLICT: Duration = Duration::from_secs(5 * 60);
/// Changes that wait; more are a reason to look at everything.
const MOST_WAITING: usize = 50_000;
/// Requests at a time.
const AT_ONCE: usize = 8;
/// How often a row is planned anew when the table holds something else than was known.
const ROUNDS: usize = 3;

/// Mirrors the objects until `stop`. To be begun when the watches are complete.
pub(crate) async fn run(ctx: Arc<Context>, registries: Registries, stop: CancellationToken) {
    let mut news = changes(&ctx.hubs);
    let waiting = Waiting::default();
    let listen = async {
        while let Some(changes) = news.next().await {
            waiting.add(changes);
        }
    };
    let mut projector = Projector {
        tables: Tables::new(registries.client, registries.prefix, ctx.metrics.clone()),
        projection: Projection::new(&ctx.cluster_id),
        ctx: &ctx,
        refused: HashSet::new(),
        read_after_conflict: READ_AFTER_CONFLICT,
    };
    // A write that is cut off is found out by the next projection.
    tokio::select! {
        () = stop.cancelled() => {}
        () = listen => {}
        () = projector.run(&waiting) => {}
    }
}

/// Changes that were not looked at yet.
#[derive(Default)]
struct Waiting {
    batch: Mutex<Batch>,
    news: Notify,
}

#[derive(Debug, PartialEq, Eq)]
enum Batch {
    Some(HashSet<Change>),
    /// So much has changed that everything is looked at.
    All,
}

impl Default for Batch {
    fn default() -> Self {
        Self::Some(HashSet::new())
    }
}

impl Waiting {
    fn add(&self, changes: impl IntoIterator<Item = Change>) {
        let mut batch = self.batch.lock();
        if let Batch::Some(waiting) = &mut *batch {
            waiting.extend(changes);
            if waiting.len() > MOST_WAITING {
                *batch = Batch::All;
            }
        }
        drop(batch);
        self.news.notify_one();
    }

    async fn take(&self) -> Batch {
        loop {
            let batch = std::mem::take(&mut *self.batch.lock());
            if batch != Batch::default() {
                return batch;
            }
            self.news.notified().await;
            tokio::time::sleep(PACE).await;
        }
    }
}

struct Projector<'a> {
    ctx: &'a Context,
    tables: Tables,
    projection: Projection,
    /// UIDs of objects whose row belongs to somebody else, or to a projection that began later. They are left alone until
    /// the tables are read again.
    refused: HashSet<String>,
    read_after_conflict: Duration,
}

impl Projector<'_> {
    async fn run(&mut self, waiting: &Waiting) {
        let mut backoff = Backoff::new(Limits {
            first: Duration::from_secs(1),
            ..Limits::default()
        });
        let mut read_at = Instant::now();
        loop {
            let batch = tokio::select! {
                biased;
                () = tokio::time::sleep_until(read_at) => Batch::All,
                batch = waiting.take() => batch,
            };
            let all = batch == Batch::All;
            match self.look(&batch).await {
                Ok(()) => {
                    backoff.succeeded(&self.ctx.cluster_id);
                    if all {
                        read_at = Instant::now() + self.next_read();
                    } else if !self.refused.is_empty() {
                        read_at = read_at.min(Instant::now() + self.read_after_conflict);
                    }
                }
                Err(failure) => {
                    let wait = backoff.failed(&self.ctx.cluster_id);
                    tracing::warn!(error = failure.error, ?wait, "the registries are not as they should be");
                    match failure.left {
                        Some(left) => {
                            waiting.add(left);
                            if all {
                                read_at = Instant::now() + self.next_read();
                            }
                        }
                        None => read_at = Instant::now(),
                    }
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// How long after a complete reading the next one follows.
    fn next_read(&mut self) -> Duration {
        if self.refused.is_empty() {
            self.read_after_conflict = READ_AFTER_CONFLICT;
            return READ_EVERY;
        }
        let wait = self.read_after_conflict;
        self.read_after_conflict = (wait * 2).min(READ_EVERY);
        wait
    }

    /// Brings the rows that a batch touches to what they should be.
    async fn look(&mut self, batch: &Batch) -> Result<(), Failure> {
        let ctx = self.ctx;
        let (hubs, cluster) = (&ctx.hubs, &ctx.cluster_id);
        let subjects = match batch {
            Batch::Some(changes) => Known::new(hubs, cluster).touched(changes),
            Batch::All => {
                let known = Known::new(hubs, cluster);
                let rows = self.read(&known).await.map_err(|error| Failure {
                    error: error.to_string(),
                    left: None,
                })?;
                let now = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or_default();
                self.projection.begin(rows, now);
                self.refused.clear();
                let mut subjects = known.all();
                let exist: HashSet<String> = subjects.iter().map(|s| s.uid.clone()).collect();
                let orphans = self.projection.orphans(&exist);
                subjects.extend(orphans.into_iter().map(|(table, owner)| Subject::of_row(table, owner)));
                subjects
            }
        };
        let known = Known::new(hubs, cluster);
        self.bring(&known, subjects.into_iter().collect()).await
    }

    /// What the tables hold of this cluster.
    async fn read(&self, known: &Known<'_>) -> Result<HashMap<Key, Kept>, TableError> {
        let cluster = &self.ctx.cluster_id;
        let machines = Index {
            name: "backend-type-status-index",
            attribute: "backend_type",
            value: BACKEND.to_owned(),
        };
        let machines = self.tables.query(Table::Instances, &machines, cluster).await?;
        let (mut instances, mut tiers) = known.places();
        for row in machines.iter().filter_map(|(_, kept)| kept.row.as_ref()) {
            if let Row::Instance(row) = row {
                tiers.insert(row.cluster_tier.clone());
                if row.shared_repositories.is_empty() {
                    instances.insert(row.instance_id.clone());
                }
            }
        }
        let on = |value: String| Index {
            name: "instance-index",
            attribute: "instance_id",
            value,
        };
        let of_tier = |value: String| Index {
            name: "tier-index",
            attribute: "tier",
            value,
        };
        instances.insert(UNATTACHED.to_owned());
        let mut places: Vec<(Table, Index)> = vec![(Table::Volumes, on(UNATTACHED.to_owned()))];
        places.extend(tiers.into_iter().map(|tier| (Table::Volumes, of_tier(tier))));
        places.extend(instances.into_iter().map(|id| (Table::Graphs, on(id))));
        let found: Vec<Vec<(Key, Kept)>> = stream::iter(places)
            .map(|(table, index)| async move { self.tables.query(table, &index, cluster).await })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let mut rows: HashMap<Key, Kept> = machines.into_iter().chain(found.into_iter().flatten()).collect();
        // An index lags behind, so what should be there is read from the tables themselves.
        let mut wanted: HashMap<Table, Vec<String>> = HashMap::new();
        for (table, id) in known.all().iter().filter_map(|s| known.wanted(s)).map(|row| row.key()) {
            rows.remove(&(table, id.clone()));
            wanted.entry(table).or_default().push(id);
        }
        for (table, mut keys) in wanted {
            // Two objects may claim one key, and a request may not name it twice.
            keys.sort_unstable();
            keys.dedup();
            rows.extend(self.tables.get_all(table, &keys).await?);
        }
        Ok(rows)
    }

    async fn bring(&mut self, known: &Known<'_>, mut subjects: Vec<Subject>) -> Result<(), Failure> {
        subjects.retain(|subject| !self.refused.contains(&subject.uid));
        let by_uid: HashMap<String, Subject> = subjects.iter().map(|s| (s.uid.clone(), s.clone())).collect();
        let mut failed: HashMap<String, String> = HashMap::new();
        for _ in 0..ROUNDS {
            let mut writes = Vec::new();
            for subject in &subjects {
                writes.extend(self.projection.plan(&subject.uid, known.wanted(subject)));
            }
            writes.sort_by_key(Write::stage);
            let mut again = HashSet::new();
            while let Some(stage) = writes.first().map(Write::stage) {
                let later = writes.split_off(writes.partition_point(|write| write.stage() == stage));
                let now = std::mem::replace(&mut writes, later);
                if stage == Stage::MachinesGone && !failed.is_empty() {
                    // A machine's row stays as long as a row may name it.
                    let held =
                        |write: Write| (write.uid().to_owned(), "another row has to be written first".to_owned());
                    failed.extend(now.into_iter().map(held));
                } else {
                    self.execute(known, &by_uid, now, &mut failed, &mut again).await;
                }
            }
            subjects.retain(|subject| again.contains(&subject.uid));
        }
        let changing = |s: Subject| (s.uid, "it is changed by somebody else all the time".to_owned());
        failed.extend(subjects.into_iter().map(changing));
        let Some((uid, message)) = failed.iter().next() else {
            return Ok(());
        };
        let object = by_uid.get(uid).map_or("an object", |subject| subject.name.as_str());
        Err(Failure {
            error: format!("{} objects, among them {object}: {message}", failed.len()),
            left: Some(
                failed
                    .keys()
                    .filter_map(|uid| by_uid.get(uid).cloned())
                    .map(Change::Of)
                    .collect(),
            ),
        })
    }

    /// Does writes of one stage.
    async fn execute(
        &mut self,
        known: &Known<'_>,
        by_uid: &HashMap<String, Subject>,
        writes: Vec<Write>,
        failed: &mut HashMap<String, String>,
        again: &mut HashSet<String>,
    ) {
        let tables = &self.tables;
        let answers: Vec<(Write, Result<Option<Standing>, TableError>)> = stream::iter(writes)
            .map(|write| async move {
                let answer = match tables.write(&write).await {
                    Ok(true) => Ok(None),
                    Ok(false) => tables.get(&write.key()).await.map(Some),
                    Err(error) => Err(error),
                };
                (write, answer)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (write, answer) in answers {
            let uid = write.uid().to_owned();
            let refusal = match answer {
                Ok(None) => {
                    self.projection.written(write);
                    continue;
                }
                Ok(Some(found)) => self.projection.refused(&write, found),
                Err(error) => {
                    failed.insert(uid, error.to_string());
                    continue;
                }
            };
            let why = match refusal {
                Refusal::Settled => continue,
                Refusal::Again => {
                    again.insert(uid);
                    continue;
                }
                Refusal::Taken => "belongs to another object or system",
                Refusal::Superseded => "was written by another operator of this cluster that began later",
            };
            let (table, key) = write.key();
            let note = format!("the row {key} of {table:?} {why}; it is left as it is");
            tracing::warn!(uid, note, "a row of the registries is not written");
            if let Some(subject) = by_uid.get(&uid) {
                let object = known.reference(subject);
                let events = &self.ctx.events;
                events.publish(object, EventType::Warning, "RegistryConflict", "Project", note);
            }
            self.refused.insert(uid);
        }
    }
}

/// Rows that could not be brought to what they should be.
struct Failure {
    error: String,
    /// What has to be looked at again; `None` is everything.
    left: Option<Vec<Change>>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn change(n: usize) -> Change {
        Change::Tier(n.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn changes_of_one_object_are_one_and_a_flood_is_everything() {
        let waiting = Waiting::default();
        waiting.add([change(1), change(2)]);
        waiting.add([change(1)]);
        assert_eq!(waiting.take().await, Batch::Some(HashSet::from([change(1), change(2)])));
        waiting.add((0..=MOST_WAITING).map(change));
        waiting.add([change(1)]);
        assert_eq!(waiting.take().await, Batch::All);
        waiting.add([]);
        waiting.add([change(3)]);
        assert_eq!(waiting.take().await, Batch::Some(HashSet::from([change(3)])));
    }
}
