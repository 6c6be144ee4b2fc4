#![allow(clippy::unwrap_used)]
use super::*;
use graphplane_crds::volume::{GraphVolumeSpec, GraphVolumeStatus};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

fn now() -> Timestamp {
    Timestamp::from_second(0).unwrap()
}

fn volume(extra: serde_json::Value) -> GraphVolume {
    let mut spec = serde_json::json!({"tier": "std", "zone": "local", "sizeGiB": 50, "reclaimPolicy": "Delete"});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    GraphVolume::new("std-0", serde_json::from_value::<GraphVolumeSpec>(spec).unwrap())
}

fn seen() -> Observed {
    let disk = Some(Disk {
        id: "dir".into(),
        size_gib: Some(GiB(50)),
        performance_differs: false,
        attached: false,
        own_file_system: true,
        change: Change::None,
        foreign: false,
    });
    Observed {
        disk,
        databases: vec![],
        nodes: vec![],
        reserved: MiB(0),
        fill: None,
        snapshots: None,
        notes_kept_disks: false,
    }
}

#[test]
fn a_disk_is_made_once_and_never_anew() {
    let mut new = volume(serde_json::json!({}));
    let none = Observed { disk: None, ..seen() };
    assert_eq!(plan(&new, &none, now()).actions, [Action::EnsureDisk]);
    assert!(plan(&new, &seen(), now()).actions.is_empty());
    new.status = Some(GraphVolumeStatus {
        volume_id: Some("dir".into()),
        ..Default::default()
    });
    let lost = plan(&new, &none, now());
    assert!(lost.actions.is_empty() && lost.phase == Some(VolumeState::Error));
    assert!(lost.says.iter().any(|s| s.reason == reasons::VOLUME_LOST));
    assert!(lost.requeue.is_some(), "it may only not be listed yet");
    new.status.as_mut().unwrap().state = lost.phase;
    assert_eq!(
        plan(&new, &none, now()).requeue,
        None,
        "what is lost is not looked for for ever"
    );
}

#[test]
fn a_lost_disk_is_restored_from_the_snapshot_that_is_named_and_once() {
    let mut lost = volume(serde_json::json!({}));
    lost.metadata.annotations = Some([(RESTORE_FROM.to_owned(), "snap-1".to_owned())].into());
    lost.status = Some(GraphVolumeStatus {
        volume_id: Some("dir".into()),
        ..Default::default()
    });
    let none = Observed {
        disk: None,
        snapshots: Some(vec![]),
        ..seen()
    };
    assert_eq!(
        plan(&lost, &none, now()).actions,
        [Action::RestoreDisk("snap-1".into())]
    );
    let there = Observed {
        snapshots: Some(vec![]),
        ..seen()
    };
    assert!(
        plan(&lost, &there, now()).actions.is_empty(),
        "only what does not exist"
    );
    lost.status.as_mut().unwrap().restored_from = Some("snap-1".into());
    assert_eq!(
        plan(&lost, &none, now()).phase,
        Some(VolumeState::Error),
        "not a second time"
    );
}

#[test]
fn it_grows_for_its_graphs_within_its_limit() {
    let reserved = |gib: u32| Observed {
        reserved: mib(GiB(gib)),
        ..seen()
    };
    let fixed = volume(serde_json::json!({}));
    assert!(plan(&fixed, &reserved(60), now()).actions.is_empty());
    let growing = volume(serde_json::json!({"autogrow": {"atPercent": 80, "maxGiB": 80}}));
    assert_eq!(
        plan(&growing, &reserved(60), now()).actions,
        [Action::RaiseSize(GiB(60))]
    );
    assert_eq!(
        plan(&growing, &reserved(90), now()).actions,
        [Action::RaiseSize(GiB(80))]
    );
    let grown = volume(serde_json::json!({"sizeGiB": 60}));
    assert_eq!(plan(&grown, &reserved(60), now()).actions, [Action::EnsureDisk]);
}

#[test]
fn scheduled_snapshots_are_not_pretended() {
    let with = volume(serde_json::json!({"snapshots": {"schedule": "0 2 * * *", "retentionDays": 7}}));
    let plan = plan(&with, &seen(), now());
    assert!(
        plan.says
            .iter()
            .any(|s| s.reason == reasons::NOT_SUPPORTED && s.message.contains("spec.snapshots"))
    );
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn full(used: u32, total: u32) -> Option<Fill> {
    Some(Fill {
        used: mib(GiB(used)),
        free: mib(GiB(total - used)),
    })
}

#[test]
fn it_grows_when_it_is_nearly_full_and_its_file_system_has_followed() {
    let growing = volume(serde_json::json!({"autogrow": {"atPercent": 80, "maxGiB": 1000}}));
    let with = |fill| plan(&growing, &Observed { fill, ..seen() }, now()).actions;
    assert!(with(full(39, 50)).is_empty());
    assert_eq!(with(full(40, 50)), [Action::RaiseSize(GiB(75))]);
    assert_eq!(
        with(full(50, 50)),
        [Action::RaiseSize(GiB(75))],
        "there is no room for anything else to help"
    );
    assert!(
        with(full(30, 30)).is_empty(),
        "the file system has yet to fill the disk"
    );
    let behind = plan(
        &growing,
        &Observed {
            fill: full(30, 30),
            ..seen()
        },
        now(),
    );
    assert!(behind.requeue.is_some());
    let mut directory = Observed {
        fill: full(50, 50),
        ..seen()
    };
    directory.disk.as_mut().unwrap().own_file_system = false;
    assert!(
        plan(&growing, &directory, now()).actions.is_empty(),
        "the disk of a directory is everybody's"
    );
}

#[test]
fn a_change_waits_for_the_one_before_and_for_the_day_to_be_over() {
    let mut larger = volume(serde_json::json!({"sizeGiB": 60}));
    let with = |larger: &GraphVolume, change, now| {
        let mut seen = seen();
        seen.disk.as_mut().unwrap().change = change;
        plan(larger, &seen, now)
    };
    assert_eq!(with(&larger, Change::None, now()).actions, [Action::EnsureDisk]);
    assert_eq!(with(&larger, Change::Failed, now()).actions, [Action::EnsureDisk]);
    let modifying = with(&larger, Change::Modifying, now());
    assert!(modifying.actions.is_empty() && modifying.phase == Some(VolumeState::Modifying));
    let optimizing = with(&larger, Change::Optimizing, now());
    assert!(optimizing.actions.is_empty() && optimizing.phase == Some(VolumeState::Optimizing));
    larger.status = Some(GraphVolumeStatus {
        modifications: [10, 20, 30, 40].map(|s| Time(at(s))).to_vec(),
        ..Default::default()
    });
    let spent = with(&larger, Change::None, at(40));
    assert!(spent.actions.is_empty());
    assert_eq!(spent.requeue, Some(Duration::from_secs(86_370)));
    assert!(
        spent.says.iter().any(|s| s.message.contains("1970-01-02T00:00:10Z")),
        "{:?}",
        spent.says
    );
    assert_eq!(with(&larger, Change::None, at(86_410)).actions, [Action::EnsureDisk]);
}

fn snapshot(id: &str, purpose: Purpose, started: i64, state: State) -> Snapshot {
    Snapshot {
        id: id.into(),
        purpose,
        started: at(started),
        state,
        in_use: false,
    }
}

#[test]
fn snapshots_are_taken_when_due_and_kept_for_their_days() {
    const DAY: i64 = 86_400;
    let mut with = volume(serde_json::json!({"snapshots": {"schedule": "0 2 * * *", "retentionDays": 2}}));
    with.metadata.creation_timestamp = Some(Time(at(3 * 3600)));
    let of = |snapshots: Vec<Snapshot>, now| {
        let snapshots = Some(snapshots);
        plan(&with, &Observed { snapshots, ..seen() }, now)
    };
    let due = |day: i64| Purpose::Schedule(at(day * DAY + 7200));
    let early = of(vec![], at(4 * 3600));
    assert!(
        early.actions.is_empty(),
        "what was due before it was made is not made up for"
    );
    assert_eq!(early.requeue, Some(Duration::from_secs(22 * 3600)));
    let late = at(3 * DAY + 9000);
    assert_eq!(
        of(vec![], late).actions,
        [Action::TakeSnapshot(at(3 * DAY + 7200))],
        "only the newest is made up for"
    );
    let taken = snapshot("a", due(3), 3 * DAY + 7300, State::Pending);
    assert!(of(vec![taken.clone()], late).actions.is_empty());
    let failed = Snapshot {
        state: State::Failed,
        ..taken
    };
    let again = of(vec![failed], late).actions;
    assert_eq!(
        again,
        [
            Action::DeleteSnapshot("a".into()),
            Action::TakeSnapshot(at(3 * DAY + 7200))
        ]
    );
    let old = snapshot("old", due(1), DAY + 7200, State::Complete);
    let new = snapshot("new", due(3), 3 * DAY + 7300, State::Complete);
    assert_eq!(
        of(vec![old.clone(), new.clone()], late).actions,
        [Action::DeleteSnapshot("old".into())]
    );
    let named = Snapshot {
        in_use: true,
        ..old.clone()
    };
    assert!(of(vec![named, new], late).actions.is_empty());
    let last = of(vec![old], late).actions;
    assert_eq!(
        last,
        [Action::TakeSnapshot(at(3 * DAY + 7200))],
        "the newest complete one stays"
    );
}

#[test]
fn a_schedule_that_cannot_be_read_is_named() {
    let with = volume(serde_json::json!({"snapshots": {"schedule": "0 2 31 2 *", "retentionDays": 7}}));
    let plan = plan(
        &with,
        &Observed {
            snapshots: Some(vec![]),
            ..seen()
        },
        now(),
    );
    assert!(plan.actions.is_empty());
    let told = |s: &Says| s.reason == reasons::INVALID_SCHEDULE && s.message.contains("spec.snapshots.schedule");
    assert!(plan.says.iter().any(told));
}

#[test]
fn a_final_snapshot_is_complete_before_the_disk_goes() {
    let mut object = volume(serde_json::json!({"reclaimPolicy": "Snapshot"}));
    object.metadata.deletion_timestamp = Some(Time(now()));
    let with = |state: Option<State>| {
        let snapshots = state.map(|state| snapshot("s", Purpose::Final, 0, state));
        plan(
            &object,
            &Observed {
                snapshots: Some(snapshots.into_iter().collect()),
                ..seen()
            },
            now(),
        )
    };
    assert_eq!(with(None).actions[0], Action::TakeFinalSnapshot);
    let pending = with(Some(State::Pending));
    assert!(pending.actions.is_empty() && pending.requeue.is_some());
    assert_eq!(
        with(Some(State::Failed)).actions[..2],
        [Action::DeleteSnapshot("s".into()), Action::TakeFinalSnapshot]
    );
    assert_eq!(with(Some(State::Complete)).actions[0], Action::DeleteDisk);
    let mut attached = Observed {
        snapshots: Some(vec![]),
        ..seen()
    };
    attached.disk.as_mut().unwrap().attached = true;
    assert!(plan(&object, &attached, now()).actions.is_empty());
}

#[test]
fn a_disk_that_was_made_for_another_object_goes_with_a_snapshot_whatever_the_policy() {
    let mut object = volume(serde_json::json!({"reclaimPolicy": "Delete"}));
    object.metadata.deletion_timestamp = Some(Time(now()));
    let mut found = Observed {
        snapshots: Some(vec![]),
        ..seen()
    };
    assert_eq!(
        plan(&object, &found, now()).actions,
        [Action::DeleteDisk, Action::RemoveFinalizer]
    );
    found.disk.as_mut().unwrap().foreign = true;
    assert_eq!(plan(&object, &found, now()).actions[0], Action::TakeFinalSnapshot);
}

#[test]
fn a_disk_that_is_kept_is_marked_so() {
    let mut object = volume(serde_json::json!({"reclaimPolicy": "Retain"}));
    object.metadata.deletion_timestamp = Some(Time(now()));
    let noting = Observed {
        notes_kept_disks: true,
        ..seen()
    };
    assert_eq!(
        plan(&object, &noting, now()).actions,
        [Action::KeepDisk, Action::RemoveFinalizer]
    );
    assert_eq!(plan(&object, &seen(), now()).actions, [Action::RemoveFinalizer]);
}

proptest! {
    /// A disk that fills in any way, on an EBS that keeps its own rules: it never shrinks, never passes its limit, never
    /// asks for a fifth change of a day or for one while another runs, and in the end has room or its limit.
    #[test]
    fn it_grows_within_the_rules(
        first in 1u32..200, most in 1u32..3000, percent in 50u32..=99,
        fills in proptest::collection::vec((0u32..400, 60i64..40_000, 0u8..3), 1..40),
    ) {
        let most = most.max(first);
        let mut object = volume(serde_json::json!({"sizeGiB": first, "autogrow": {"atPercent": percent, "maxGiB": most}}));
        object.status = Some(GraphVolumeStatus::default());
        let (mut disk, mut file_system, mut used) = (first, first, 0u32);
        let mut change = Change::None;
        let mut clock = 0i64;
        let mut changes: Vec<i64> = vec![];
        let fills = fills.into_iter().chain(std::iter::repeat_n((0, 90_000, 2), 30));
        for (more, wait, progress) in fills {
            used = (used + more).min(file_system);
            clock += wait;
            // The provider and the machine go on by themselves.
            change = match (change, progress) {
                (Change::Modifying, 1..) => Change::Optimizing,
                (Change::Optimizing, 2..) => Change::None,
                (change, _) => change,
            };
            file_system = if change == Change::Modifying { file_system } else { disk };
            for _ in 0..5 {
                let shown = if change == Change::Modifying { file_system } else { disk };
                let mut world = Observed { fill: full(used, file_system), ..seen() };
                let mut facts = world.disk.take().unwrap();
                (facts.size_gib, facts.change) = (Some(GiB(shown)), change);
                world.disk = Some(facts);
                let plan = plan(&object, &world, at(clock));
                match plan.actions.first() {
                    Some(Action::RaiseSize(to)) => {
                        prop_assert!(*to > object.spec.size_gib && to.0 <= most);
                        object.spec.size_gib = *to;
                    }
                    Some(Action::EnsureDisk) => {
                        prop_assert!(object.spec.size_gib.0 > disk && change == Change::None);
                        disk = object.spec.size_gib.0;
                        change = Change::Modifying;
                        changes.push(clock);
                        let status = object.status.as_mut().unwrap();
                        status.modifications.push(Time(at(clock)));
                        status.modifications = recent(&status.modifications, at(clock));
                        let in_a_day = changes.iter().filter(|then| clock - **then < 86_400).count();
                        prop_assert!(in_a_day <= CHANGES_PER_DAY, "{changes:?}");
                    }
                    Some(other) => prop_assert!(false, "{other:?}"),
                    None => break,
                }
            }
        }
        let has_room = u64::from(used) * 100 < u64::from(file_system) * u64::from(percent);
        prop_assert!(has_room || disk == most, "{used} of {disk} GiB, limit {most}");
    }

    /// However often and late it is looked at, one snapshot is taken for a time, and one that can be restored stays.
    #[test]
    fn snapshots_come_and_go(
        waits in proptest::collection::vec((60i64..400_000, 0u8..4), 1..60), days in 1u32..5,
    ) {
        let mut object = volume(serde_json::json!({"snapshots": {"schedule": "0 */6 * * *", "retentionDays": days}}));
        object.metadata.creation_timestamp = Some(Time(at(0)));
        let mut taken: Vec<Snapshot> = vec![];
        let (mut clock, mut number) = (1i64, 0);
        for (wait, outcome) in waits {
            clock += wait;
            for snapshot in taken.iter_mut().filter(|s| s.state == State::Pending) {
                snapshot.state = [State::Complete, State::Complete, State::Pending, State::Failed][usize::from(outcome)];
            }
            for step in 0.. {
                prop_assert!(step < 200, "no end");
                let had = newest(&taken).map(|s| s.id.clone());
                let world = Observed { snapshots: Some(taken.clone()), ..seen() };
                let plan = plan(&object, &world, at(clock));
                match plan.actions.first() {
                    Some(Action::TakeSnapshot(due)) => {
                        prop_assert!(*due <= at(clock) && due.as_second() % 21_600 == 0);
                        prop_assert!(!taken.iter().any(|s| s.purpose == Purpose::Schedule(*due)), "twice");
                        number += 1;
                        taken.push(snapshot(&format!("s{number}"), Purpose::Schedule(*due), clock, State::Pending));
                    }
                    Some(Action::DeleteSnapshot(id)) => {
                        prop_assert!(Some(id) != had.as_ref());
                        taken.retain(|s| s.id != *id);
                    }
                    Some(other) => prop_assert!(false, "{other:?}"),
                    None => {
                        prop_assert!(plan.requeue.is_some_and(|wait| wait <= Duration::from_secs(21_600)));
                        break;
                    }
                }
            }
        }
        let kept = at(clock).checked_sub(SignedDuration::from_secs(i64::from(days) * 86_400)).unwrap();
        let old = taken.iter().filter(|s| s.started <= kept && s.state != State::Pending).count();
        prop_assert!(old <= 1, "only the newest may be older than its days");
    }
}

proptest! {
    #[test]
    fn a_disk_with_data_or_a_node_is_never_destroyed(
        databases in proptest::collection::vec("[a-z]{2}", 0..3), nodes in proptest::collection::vec("[a-z]{2}", 0..2),
        disk in any::<bool>(), policy in prop_oneof![Just("Retain"), Just("Snapshot"), Just("Delete")], protected in any::<bool>(),
    ) {
        let mut object = volume(serde_json::json!({"reclaimPolicy": policy}));
        object.metadata.deletion_timestamp = Some(Time(now()));
        if protected {
            object.metadata.annotations = Some([(DELETION_PROTECTION.to_owned(), "true".to_owned())].into());
        }
        let mut seen = Observed { databases, nodes, disk: seen().disk.filter(|_| disk), ..seen() };
        let busy = protected || !seen.databases.is_empty() || !seen.nodes.is_empty();
        let first = plan(&object, &seen, now());
        prop_assert_eq!(first.actions.is_empty(), busy);
        if first.actions.first() == Some(&Action::DeleteDisk) {
            prop_assert!(policy != "Retain" && disk);
            seen.disk = None;
            prop_assert_eq!(plan(&object, &seen, now()).actions, vec![Action::RemoveFinalizer]);
        }
    }
}
