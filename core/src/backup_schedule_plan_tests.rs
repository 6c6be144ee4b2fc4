#![allow(clippy::unwrap_used)]
use super::*;
use crate::backup_plan::Task;
use crate::ending::{Database, NodeSeen};
use crate::fleet::{Accepts, NodeView, Serving};
use graphplane_crds::backup::{BackupScheduleSpec, BackupScheduleStatus};
use graphplane_crds::conditions;
use graphplane_crds::quantities::{Epoch, Limit};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

const DAY: i64 = 86_400;
const SCRATCH: &str = "kg0123456789abcdef_drill3f2a9c1e0b5d4c6";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn later(moment: Timestamp, seconds: i64) -> Timestamp {
    moment.checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

/// A schedule at 03:00 that was created on the 1st of November.
fn schedule(extra: serde_json::Value) -> BackupSchedule {
    let mut spec = serde_json::json!({"graph": "karate", "schedule": "0 3 * * *"});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let mut schedule = BackupSchedule::new("nightly", serde_json::from_value::<BackupScheduleSpec>(spec).unwrap());
    schedule.metadata.creation_timestamp = Some(Time(at("2026-11-01T12:00:00Z")));
    schedule
}

fn node(serving: Serving) -> NodeSeen {
    NodeSeen::Present(NodeView {
        name: "std-0".into(),
        tier: "std".into(),
        volume: Some("std-0".into()),
        serving,
        accepts: Accepts::Now,
        endpoint: None,
        epoch: Epoch(1),
        changes_in: None,
    })
}

fn seen() -> Observed {
    Observed {
        graph: GraphSeen::Present,
        backups: vec![],
        others: BTreeSet::new(),
        created: vec![],
        limits: Some(BackupLimits {
            retention_days: 3650,
            per_day: Limit::UNLIMITED,
            ..Default::default()
        }),
        drill: DrillSeen {
            volume: Some("std-0".into()),
            database: Some(SCRATCH.parse().unwrap()),
            node: node(Serving::Yes),
            taken: false,
            task: Task::None,
            start: None,
            cancelled: false,
            scratch: Database::Unknown,
            counts: None,
        },
    }
}

fn with(backups: Vec<Made>) -> Observed {
    Observed { backups, ..seen() }
}

fn made(name: &str, slot: Timestamp, phase: BackupPhase) -> Made {
    let complete = phase == BackupPhase::Completed;
    Made {
        name: name.into(),
        slot: Some(slot),
        phase,
        created: slot,
        completed: complete.then_some(slot),
        counts: complete.then_some(COUNTS),
        protected: false,
        deleting: false,
    }
}

const COUNTS: Counts = Counts {
    nodes: 34,
    relationships: 78,
};

fn says<'a>(plan: &'a Plan<Action, Times>, type_: &str) -> (Option<bool>, &'a str) {
    let found = plan.says.iter().find(|s| s.type_ == type_).unwrap();
    (found.status, found.reason)
}

fn ready(plan: &Plan<Action, Times>) -> (Option<bool>, &str) {
    says(plan, conditions::READY)
}

fn create(time: &str) -> Action {
    let time = at(time);
    let name = names::scheduled_backup("nightly", time);
    Action::Create { name, time }
}

#[test]
fn a_due_time_has_one_backup_and_missed_ones_are_made_up_for_once() {
    let new = schedule(serde_json::json!({}));
    let early = plan(&new, &seen(), at("2026-11-01T23:00:00Z"));
    assert!(early.actions.is_empty(), "nothing is due before it was made");
    assert_eq!(early.phase.next, Some(at("2026-11-02T03:00:00Z")));
    assert_eq!(early.requeue, Some(std::time::Duration::from_secs(4 * 3600)));
    let now = at("2026-11-05T04:00:00Z");
    let due = plan(&new, &seen(), now);
    assert_eq!(
        due.actions,
        [create("2026-11-05T03:00:00Z")],
        "not for each that was missed"
    );
    let done = with(vec![made(
        "nightly-202611050300",
        at("2026-11-05T03:00:00Z"),
        BackupPhase::Completed,
    )]);
    let after = plan(&new, &done, now);
    assert!(after.actions.is_empty());
    assert_eq!(after.phase.last, Some(at("2026-11-05T03:00:00Z")));
    assert_eq!(ready(&after), (Some(true), reasons::READY));
    let mut written = new.clone();
    written.status = Some(BackupScheduleStatus {
        last_schedule_time: Some(Time(at("2026-11-05T03:00:00Z"))),
        ..Default::default()
    });
    let deleted = plan(&written, &seen(), now);
    assert!(
        deleted.actions.is_empty(),
        "one that somebody deleted is not made again"
    );
}

#[test]
fn a_backup_without_its_annotations_still_has_its_name() {
    let mut stripped = made(
        "nightly-202611050300",
        at("2026-11-05T03:00:00Z"),
        BackupPhase::Completed,
    );
    stripped.slot = None;
    let now = at("2026-11-05T04:00:00Z");
    assert!(
        plan(&schedule(serde_json::json!({})), &with(vec![stripped.clone()]), now)
            .actions
            .is_empty()
    );
    stripped.slot = Some(at("2099-01-01T00:00:00Z"));
    let next = plan(&schedule(serde_json::json!({})), &with(vec![stripped]), later(now, DAY));
    assert_eq!(
        next.actions,
        [create("2026-11-06T03:00:00Z")],
        "a time of the future stops nothing"
    );
}

#[test]
fn it_says_why_it_makes_none() {
    let now = at("2026-11-05T04:00:00Z");
    let plain = serde_json::json!({});
    let none = |extra: &serde_json::Value, seen: &Observed| {
        let plan = plan(&schedule(extra.clone()), seen, now);
        assert!(plan.actions.is_empty(), "{:?}", plan.actions);
        let (status, reason) = ready(&plan);
        (status, reason.to_owned())
    };
    let of = |graph| Observed { graph, ..seen() };
    let no = |reason: &str| (Some(false), reason.to_owned());
    assert_eq!(none(&plain, &of(GraphSeen::Missing)), no(reasons::GRAPH_NOT_FOUND));
    assert_eq!(none(&plain, &of(GraphSeen::Deleting)), no(reasons::GRAPH_NOT_READY));
    assert_eq!(none(&plain, &of(GraphSeen::Suspended)), no(reasons::SUSPENDED));
    assert_eq!(
        none(&serde_json::json!({"suspended": true}), &seen()),
        no(reasons::SUSPENDED)
    );
    let never = serde_json::json!({"schedule": "0 0 30 2 *"});
    assert_eq!(none(&never, &seen()), no(reasons::INVALID_SCHEDULE));
    let never = serde_json::json!({"drillSchedule": "99 * * * *"});
    assert_eq!(none(&never, &seen()), no(reasons::INVALID_SCHEDULE));
    let mut paused = schedule(plain.clone());
    let annotation = (graphplane_crds::annotations::PAUSED.to_owned(), "true".to_owned());
    paused.metadata.annotations = Some([annotation].into());
    let paused = plan(&paused, &seen(), now);
    assert!(paused.actions.is_empty() && says(&paused, conditions::PAUSED).0 == Some(true));
}

#[test]
fn one_that_runs_the_tiers_limit_and_a_taken_name_are_waited_for() {
    let now = at("2026-11-05T04:00:00Z");
    let new = schedule(serde_json::json!({}));
    let reason = |seen: &Observed| {
        let plan = plan(&new, seen, now);
        assert!(plan.actions.is_empty(), "{:?}", plan.actions);
        let all = [conditions::PROGRESSING, conditions::STALLED];
        let found = all
            .into_iter()
            .map(|type_| says(&plan, type_))
            .find(|(status, _)| *status == Some(true));
        found.unwrap().1.to_owned()
    };
    let running = made("nightly-202611040300", at("2026-11-04T03:00:00Z"), BackupPhase::Running);
    assert_eq!(reason(&with(vec![running])), reasons::BACKUP_RUNNING);
    let mut limited = seen();
    limited.limits.as_mut().unwrap().per_day = Limit(2);
    limited.created = vec![at("2026-11-05T00:00:00Z"), at("2026-11-05T01:00:00Z")];
    assert_eq!(reason(&limited), reasons::BACKUP_LIMIT);
    limited.created[0] = at("2026-11-04T23:59:59Z");
    assert_eq!(plan(&new, &limited, now).actions, [create("2026-11-05T03:00:00Z")]);
    let mut taken = seen();
    taken.others.insert("nightly-202611050300".into());
    assert_eq!(reason(&taken), reasons::NAME_TAKEN);
}

#[test]
fn a_failed_backup_is_told_and_the_next_is_made() {
    let failed = with(vec![made(
        "nightly-202611040300",
        at("2026-11-04T03:00:00Z"),
        BackupPhase::Failed,
    )]);
    let waiting = plan(&schedule(serde_json::json!({})), &failed, at("2026-11-04T04:00:00Z"));
    assert_eq!(ready(&waiting), (Some(false), reasons::BACKUP_FAILED));
    let next = plan(&schedule(serde_json::json!({})), &failed, at("2026-11-05T04:00:00Z"));
    assert_eq!(next.actions, [create("2026-11-05T03:00:00Z")]);
}

#[test]
fn what_is_older_than_its_days_goes_and_the_newest_stay() {
    let now = at("2026-11-20T04:00:00Z");
    let old = |n: i64, phase| {
        let time = later(at("2026-11-01T13:00:00Z"), n * 3600);
        made(&format!("b{n}"), time, phase)
    };
    let mut protected = old(1, BackupPhase::Completed);
    protected.protected = true;
    let mut going = old(2, BackupPhase::Completed);
    going.deleting = true;
    let backups = vec![
        old(0, BackupPhase::Completed),
        protected,
        going,
        old(3, BackupPhase::Failed),
        old(4, BackupPhase::Completed),
        old(5, BackupPhase::Completed),
        made("today", at("2026-11-20T03:00:00Z"), BackupPhase::Failed),
    ];
    let kept = schedule(serde_json::json!({"retention": {"days": 7, "keepAtLeast": 2}}));
    let expire = |names: &[&str]| vec![Action::Expire(names.iter().map(|n| (*n).to_owned()).collect())];
    assert_eq!(plan(&kept, &with(backups.clone()), now).actions, expire(&["b0", "b3"]));
    let long = schedule(serde_json::json!({"retention": {"days": 100, "keepAtLeast": 2}}));
    assert!(plan(&long, &with(backups.clone()), now).actions.is_empty());
    let mut tier = with(backups.clone());
    tier.limits.as_mut().unwrap().retention_days = 7;
    assert_eq!(
        plan(&long, &tier, now).actions,
        expire(&["b0", "b3"]),
        "the tier has the last word"
    );
    tier.graph = GraphSeen::Missing;
    assert!(
        plan(&long, &tier, now).actions.is_empty(),
        "backups of a graph that is gone are all there is"
    );
}

fn drilled() -> (BackupSchedule, Observed) {
    let schedule = schedule(serde_json::json!({"drillSchedule": "0 4 * * 0"}));
    let backup = made(
        "nightly-202611080300",
        at("2026-11-08T03:00:00Z"),
        BackupPhase::Completed,
    );
    (schedule, with(vec![backup]))
}

const SUNDAY: &str = "2026-11-08T04:00:00Z";

#[test]
fn a_drill_is_written_down_restored_counted_and_removed() {
    let (mut schedule, mut seen) = drilled();
    let now = at(SUNDAY);
    assert!(plan(&schedule, &seen, later(now, -60)).actions.is_empty());
    let begun = plan(&schedule, &seen, now).actions;
    let [Action::BeginDrill(drill)] = &begun[..] else {
        panic!("{begun:?}")
    };
    assert_eq!(
        (drill.backup.as_str(), drill.database.as_str()),
        ("nightly-202611080300", SCRATCH)
    );
    let status = schedule.status.get_or_insert_default();
    status.drill = Some(drill.clone());
    assert_eq!(plan(&schedule, &seen, now).actions, [Action::Restore]);
    schedule.status.as_mut().unwrap().drill.as_mut().unwrap().task_id = Some("restore_1".into());
    seen.drill.task = Task::Running;
    let restoring = plan(&schedule, &seen, now);
    assert!(restoring.actions.is_empty() && restoring.requeue.is_some());
    assert_eq!(
        says(&restoring, conditions::PROGRESSING),
        (Some(true), reasons::DRILL_RUNNING)
    );
    seen.drill.task = Task::Completed;
    seen.drill.scratch = Database::Present;
    assert_eq!(plan(&schedule, &seen, now).actions, [Action::Count]);
    let ends = |seen: &Observed| match &plan(&schedule, seen, now).actions[..] {
        [Action::EndDrill(ended)] => ended.clone(),
        other => panic!("{other:?}"),
    };
    seen.drill.counts = Some(COUNTS);
    assert!(matches!(ends(&seen), Ended::Passed(_)));
    seen.drill.counts = Some(Counts { nodes: 33, ..COUNTS });
    assert!(matches!(ends(&seen), Ended::Failed(why) if why.contains("33 nodes") && why.contains("34 nodes")));
    seen.drill.task = Task::Failed("checksum".into());
    assert!(matches!(ends(&seen), Ended::Failed(why) if why.contains("checksum")));
    seen.drill.task = Task::None;
    seen.drill.start = Some(Start::NoRoom("full".into()));
    assert!(matches!(ends(&seen), Ended::NotHeld(why) if why.contains("full")));
    seen.drill.start = None;
    seen.drill.task = Task::Interrupted;
    assert_eq!(ends(&seen), Ended::Again);
    seen.drill.task = Task::Completed;
    seen.drill.counts = None;
    seen.drill.scratch = Database::Absent;
    assert_eq!(ends(&seen), Ended::Again, "cut off after it was removed");
    seen.drill.node = NodeSeen::Gone { volume: false };
    assert_eq!(ends(&seen), Ended::Forgotten);
}

#[test]
fn a_drill_that_nobody_wants_is_stopped_before_its_database_is_removed() {
    let (mut schedule, mut seen) = drilled();
    let begun = plan(&schedule, &seen, at(SUNDAY)).actions;
    let [Action::BeginDrill(drill)] = &begun[..] else {
        panic!("{begun:?}")
    };
    let mut drill = drill.clone();
    drill.task_id = Some("restore_1".into());
    schedule.status.get_or_insert_default().drill = Some(drill);
    schedule.metadata.deletion_timestamp = Some(Time(at(SUNDAY)));
    let actions = |schedule: &BackupSchedule, seen: &Observed| plan(schedule, seen, at(SUNDAY)).actions;
    seen.drill.task = Task::Running;
    assert_eq!(actions(&schedule, &seen), [Action::Cancel]);
    seen.drill.cancelled = true;
    assert!(actions(&schedule, &seen).is_empty());
    seen.drill.task = Task::Interrupted;
    assert_eq!(actions(&schedule, &seen), [Action::EndDrill(Ended::Dropped)]);
    seen.drill.taken = true;
    assert_eq!(
        actions(&schedule, &seen),
        [Action::EndDrill(Ended::Forgotten)],
        "it is somebody else's"
    );
    seen.drill.node = node(Serving::Lost);
    assert!(actions(&schedule, &seen).is_empty(), "the database would stay");
    schedule.status.as_mut().unwrap().drill = None;
    assert_eq!(actions(&schedule, &seen), [Action::RemoveFinalizer]);
}

#[test]
fn a_drill_needs_a_backup_that_can_be_restored() {
    let (schedule, _) = drilled();
    let none = plan(&schedule, &with(vec![]), at("2026-11-08T02:59:00Z"));
    assert!(
        !none.says.iter().any(|s| s.type_ == conditions::DRILL_PASSED),
        "none is due"
    );
    let open = with(vec![made(
        "nightly-202611080300",
        at("2026-11-08T03:00:00Z"),
        BackupPhase::Running,
    )]);
    let waits = plan(&schedule, &open, at(SUNDAY));
    assert_eq!(says(&waits, conditions::DRILL_PASSED), (None, reasons::NO_BACKUP));
    let (mut snapshots, seen) = drilled();
    snapshots.spec.method = BackupMethod::VolumeSnapshot;
    let refused = plan(&snapshots, &seen, at(SUNDAY));
    assert!(refused.actions.is_empty());
    assert_eq!(
        says(&refused, conditions::STALLED),
        (Some(true), reasons::NOT_SUPPORTED)
    );
}

/// A world that does what plans say, and forgets what was not written when it is cut off.
struct World {
    schedule: BackupSchedule,
    seen: Observed,
    ever: Vec<String>,
    now: Timestamp,
    keep: usize,
}

impl World {
    fn new(keep: u32, days: u32) -> Self {
        let retention = serde_json::json!({"schedule": "0 */6 * * *", "drillSchedule": "30 1 * * *",
            "retention": {"days": days, "keepAtLeast": keep}});
        Self {
            schedule: schedule(retention),
            seen: seen(),
            ever: vec![],
            now: at("2026-11-01T12:00:00Z"),
            keep: keep as usize,
        }
    }

    fn complete(&self) -> usize {
        let complete = |b: &&Made| b.phase == BackupPhase::Completed;
        self.seen.backups.iter().filter(complete).count()
    }

    fn act(&mut self, action: &Action) {
        let before = self.complete();
        match action {
            Action::Create { name, time } => {
                assert!(!self.ever.contains(name), "two for {time}");
                assert!(!self.seen.backups.iter().any(Made::is_open), "one runs");
                self.ever.push(name.clone());
                self.seen.backups.push(Made {
                    created: self.now,
                    ..made(name, *time, BackupPhase::Running)
                });
            }
            Action::Expire(names) => {
                self.seen.backups.retain(|b| !names.contains(&b.name));
                assert!(
                    self.complete() >= before.min(self.keep),
                    "fewer than {} are left",
                    self.keep
                );
            }
            Action::BeginDrill(drill) => self.schedule.status.get_or_insert_default().drill = Some(drill.clone()),
            Action::Restore => {
                if self.seen.drill.scratch == Database::Present {
                    self.seen.drill.start = Some(Start::Leftover);
                } else {
                    self.seen.drill.scratch = Database::Present;
                    self.seen.drill.task = Task::Completed;
                    let drill = self.schedule.status.as_mut().unwrap().drill.as_mut();
                    drill.unwrap().task_id = Some("restore_1".into());
                }
            }
            Action::Count => self.seen.drill.counts = Some(COUNTS),
            Action::EndDrill(ended) => {
                self.seen.drill.scratch = Database::Absent;
                let status = self.schedule.status.as_mut().unwrap();
                status.drill = status
                    .drill
                    .take()
                    .filter(|_| *ended == Ended::Again)
                    .map(|drill| Drill {
                        task_id: None,
                        repeated: drill.repeated + 1,
                        ..drill
                    });
                if ended.says().is_some() {
                    status.last_drill_time = Some(Time(self.now));
                }
                (self.seen.drill.task, self.seen.drill.start, self.seen.drill.counts) = (Task::None, None, None);
            }
            Action::Cancel | Action::RemoveFinalizer => panic!("{action:?}"),
        }
    }

    /// A pass; with `cut`, it ends after so many actions, and neither the status nor what was learnt is kept.
    fn pass(&mut self, cut: Option<usize>) {
        for step in 0.. {
            assert!(step < 25, "it goes in a circle");
            let plan = plan(&self.schedule, &self.seen, self.now);
            if cut == Some(step) {
                let written = self.schedule.status.as_mut().and_then(|s| s.drill.as_mut());
                written.into_iter().for_each(|drill| drill.task_id = None);
                (self.seen.drill.task, self.seen.drill.start, self.seen.drill.counts) = (Task::None, None, None);
                return;
            }
            let Some(action) = plan.actions.first() else {
                self.schedule.status.get_or_insert_default().last_schedule_time = plan.phase.last.map(Time);
                return;
            };
            self.act(action);
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_cut_off_it_converges(
        keep in 1u32..4, days in 1u32..3,
        hours in proptest::collection::vec((1i64..40, proptest::option::of(0usize..6), any::<bool>()), 1..60),
    ) {
        let mut world = World::new(keep, days);
        for (hours, cut, good) in hours {
            world.now = later(world.now, hours * 3600);
            world.pass(cut);
            let now = world.now;
            for backup in world.seen.backups.iter_mut().filter(|b| b.is_open()) {
                backup.phase = if good { BackupPhase::Completed } else { BackupPhase::Failed };
                backup.completed = good.then_some(now);
                backup.counts = good.then_some(COUNTS);
            }
        }
        world.pass(None);
        let rest = plan(&world.schedule, &world.seen, world.now);
        prop_assert!(rest.actions.is_empty(), "{:?}", rest.actions);
        prop_assert!(world.schedule.status.as_ref().unwrap().drill.is_none());
        prop_assert!(world.seen.drill.scratch != Database::Present, "nothing is left of a drill");
        let old = |b: &&Made| later(b.completed.unwrap_or(b.created), i64::from(days) * DAY) <= world.now;
        prop_assert!(world.seen.backups.iter().filter(old).count() <= keep as usize);
    }
}
