#![allow(clippy::unwrap_used)]
use super::*;
use proptest::prelude::*;

const HOUR: i64 = 3600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn thing(kind: Kind, id: &str, tags: &[(&str, &str)]) -> Thing {
    let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Thing {
        kind,
        id: id.into(),
        created: at(0),
        busy: false,
        tags: tags.collect(),
        disk: None,
        complete: true,
    }
}

fn owner(name: &str, uid: &str, ids: &[&str]) -> Owner {
    Owner {
        kind: "GraphVolume".into(),
        name: name.into(),
        uid: uid.into(),
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    }
}

const TAGS: [(&str, &str); 3] = [("kind", "GraphVolume"), ("name", "std-0"), ("uid", "u1")];

fn look(things: &[Thing], owners: &[Owner], since: &BTreeMap<String, Timestamp>, now: i64) -> Found {
    plan(things, owners, since, &BTreeSet::new(), Patience::default(), at(now))
}

#[test]
fn an_owner_is_known_by_uid_by_identity_and_by_name_while_it_has_none() {
    let disk = thing(Kind::Volume, "vol-1", &TAGS);
    let with = |owner: Owner| {
        look(std::slice::from_ref(&disk), &[owner], &BTreeMap::new(), 99 * HOUR)
            .orphans
            .len()
    };
    assert_eq!(with(owner("x", "u1", &["vol-9"])), 0, "by UID");
    assert_eq!(with(owner("x", "u9", &["vol-1"])), 0, "by identity");
    assert_eq!(
        with(owner("std-0", "u9", &[])),
        0,
        "by name: it was restored, say, and has not looked yet"
    );
    assert_eq!(with(owner("std-0", "u9", &["vol-9"])), 1, "its disk is another one");
    assert_eq!(with(owner("x", "", &[])), 1);
}

#[test]
fn a_disk_goes_after_its_grace_and_its_snapshot() {
    let disk = thing(Kind::Volume, "vol-1", &TAGS);
    let none = BTreeMap::new();
    assert!(
        look(std::slice::from_ref(&disk), &[], &none, 100).orphans.is_empty(),
        "young"
    );
    let first = look(std::slice::from_ref(&disk), &[], &none, 2 * HOUR);
    assert_eq!((first.orphans.len(), &first.action), (1, &None));
    assert_eq!(first.requeue, Some(Duration::from_secs(86_400)));
    let early = look(std::slice::from_ref(&disk), &[], &first.since, 25 * HOUR);
    assert_eq!((early.action, &early.since), (None, &first.since));
    let due = |things: &[Thing]| look(things, &[], &first.since, 26 * HOUR).action;
    let first_step = Some(Action::Snapshot {
        disk: disk.clone(),
        since: at(2 * HOUR),
    });
    assert_eq!(due(std::slice::from_ref(&disk)), first_step);
    let mut snapshot = thing(Kind::Snapshot, "snap-1", &[("purpose", "orphan"), ("retained", "now")]);
    (snapshot.disk, snapshot.created) = (Some("vol-1".into()), at(HOUR));
    assert_eq!(
        due(&[disk.clone(), snapshot.clone()]),
        first_step,
        "of a time before the disk was somebody's again"
    );
    (snapshot.created, snapshot.complete) = (at(26 * HOUR), false);
    assert_eq!(due(&[disk.clone(), snapshot.clone()]), None, "not complete");
    snapshot.complete = true;
    assert_eq!(
        due(&[disk.clone(), snapshot.clone()]),
        Some(Action::Collect(disk.clone()))
    );
    let attached = Thing {
        busy: true,
        ..disk.clone()
    };
    assert_eq!(due(&[attached, snapshot]), None);
    let again = look(std::slice::from_ref(&disk), &[], &none, 99 * HOUR);
    assert_eq!(again.action, None, "it was somebody's in between");
}

#[test]
fn what_cannot_be_removed_keeps_nothing_else() {
    let things = ["i-1", "i-2"].map(|id| thing(Kind::Instance, id, &TAGS));
    let since: BTreeMap<String, Timestamp> = things.iter().map(|t| (t.key(), at(HOUR))).collect();
    let next = |failed: &[&Thing]| {
        let failed = failed.iter().map(|t| t.key()).collect();
        let found = plan(&things, &[], &since, &failed, Patience::default(), at(99 * HOUR));
        found.action.unwrap().thing().id.clone()
    };
    assert_eq!(next(&[]), "i-1");
    assert_eq!(next(&[&things[0]]), "i-2");
    assert_eq!(next(&[&things[0], &things[1]]), "i-1", "then it is tried again");
}

#[test]
fn what_is_kept_is_no_orphan() {
    let kept = thing(Kind::Volume, "vol-1", &[("retained", "2026-11-22T00:00:00Z")]);
    let until = (50 * HOUR).to_string();
    let expiring = thing(Kind::Snapshot, "snap-1", &[("expires", until.as_str())]);
    let things = [kept, expiring.clone()];
    assert!(look(&things, &[], &BTreeMap::new(), 49 * HOUR).orphans.is_empty());
    assert_eq!(look(&things, &[], &BTreeMap::new(), 51 * HOUR).orphans, [expiring]);
}

fn any_thing() -> impl Strategy<Value = Thing> {
    let tags = (0u8..3, 0u8..3, any::<bool>());
    (0usize..4, 0u8..6, 0i64..200, any::<bool>(), any::<bool>(), tags).prop_map(
        |(kind, id, created, busy, complete, (uid, name, retained))| {
            let (uid, name) = (format!("u{uid}"), format!("n{name}"));
            let mut tags = vec![("kind", "GraphVolume"), ("uid", uid.as_str()), ("name", name.as_str())];
            if retained {
                tags.push(("retained", "x"));
            }
            let mut thing = thing(Kind::ALL[kind], &format!("id-{id}"), &tags);
            (thing.created, thing.busy, thing.complete) = (at(created * HOUR), busy, complete);
            thing
        },
    )
}

proptest! {
    /// Whatever there is and however often it is looked at: nothing goes that is owned, kept, young or in use, or that has
    /// not been an orphan for the whole grace; and no disk without a complete snapshot.
    #[test]
    fn only_what_was_nobodys_for_long_is_collected(
        things in proptest::collection::vec(any_thing(), 0..8),
        looks in proptest::collection::vec((1i64..30, proptest::collection::vec((0u8..3, 0u8..6), 0..3)), 1..12),
    ) {
        let patience = Patience::default();
        let mut things = things;
        let mut since = BTreeMap::new();
        let mut orphan_from: BTreeMap<String, i64> = BTreeMap::new();
        let mut hour = 0;
        for (wait, owners) in looks {
            hour += wait;
            let owners: Vec<Owner> =
                owners.iter().map(|(uid, id)| owner("elsewhere", &format!("u{uid}"), &[&format!("id-{id}")])).collect();
            let owned = |t: &Thing| owners.iter().any(|o| Some(o.uid.as_str()) == t.tag("uid") || o.ids.contains(&t.id));
            let found = plan(&things, &owners, &since, &BTreeSet::new(), patience, at(hour * HOUR));
            prop_assert!(found.orphans.iter().all(|t| !owned(t) && t.tag("retained").is_none()));
            orphan_from.retain(|key, _| found.orphans.iter().any(|t| t.key() == *key));
            for orphan in &found.orphans {
                orphan_from.entry(orphan.key()).or_insert(hour);
            }
            match found.action {
                Some(Action::Collect(gone)) => {
                    prop_assert!(!owned(&gone) && !gone.busy && gone.tag("retained").is_none());
                    prop_assert!(gone.created <= at((hour - 1) * HOUR));
                    prop_assert!(hour - orphan_from[&gone.key()] >= 24);
                    let from = at(orphan_from[&gone.key()] * HOUR);
                    let safe = |t: &Thing| t.disk.as_ref() == Some(&gone.id) && t.complete && t.created >= from;
                    prop_assert!(gone.kind != Kind::Volume || things.iter().any(safe));
                    things.retain(|t| t.key() != gone.key());
                }
                Some(Action::Snapshot { disk, .. }) => {
                    prop_assert!(disk.kind == Kind::Volume);
                    let mut taken = thing(Kind::Snapshot, &format!("of-{}-{hour}", disk.id), &[("purpose", "orphan"), ("retained", "x")]);
                    (taken.disk, taken.created) = (Some(disk.id.clone()), at(hour * HOUR));
                    things.push(taken);
                }
                None => {}
            }
            since = found.since;
        }
    }
}
