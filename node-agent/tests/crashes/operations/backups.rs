//! Backups and restores.

use super::{Draw, Drawn, Operation, copy, copy_graph, copy_vectors};
use crate::world::World;
use serde_json::json;

pub(crate) const BACKUPS: &[Operation] = &[
    Operation {
        name: "backup",
        draw: backup,
        marks: &[("tmp", "backup-"), ("objects/crash", "")],
    },
    Operation {
        name: "restore",
        draw: restore,
        marks: EXCHANGE,
    },
    Operation {
        name: "restore as new",
        draw: restore_as_new,
        marks: EXCHANGE,
    },
];

const EXCHANGE: &[(&str, &str)] = &[
    ("databases", ".restoring-"),
    ("staging", ".restoring-"),
    ("vectors", ".restoring-"),
    ("databases", ".swap-"),
    ("databases", ".previous-"),
    ("vectors", ".previous-"),
];

fn backup(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, key) = (draw.database(world)?, format!("crash/{}", draw.fresh()));
    let body = json!({"destination": {"key": key}});
    let steps = vec![
        copy_graph(&id, &key),
        copy(&id, &key, |content, copy| copy.staging = content.staging.clone()),
        copy_vectors(&id, &key),
        Box::new(move |world: &mut World| {
            let Some(copy) = world.copies.remove(&key) else {
                return false;
            };
            world.backups.insert(key.clone(), copy).is_none()
        }),
    ];
    Some(Drawn::of(steps, |caller| async move {
        caller.task(&format!("/databases/{id}/backup"), body).await
    }))
}

/// A forced restore also makes a database that somebody has deleted meanwhile; another one needs its id to be free.
/// What the database had is gone, vectors too.
fn restored(id: &str, key: &str, forced: bool) -> impl Fn(&mut World) -> bool + Send + Sync + use<> {
    let (id, key) = (id.to_owned(), key.to_owned());
    move |world| match world.backups.get(&key) {
        Some(backup) if forced || !world.databases.contains_key(&id) => {
            let content = backup.clone();
            world.take(&id);
            world.databases.insert(id.clone(), content).is_none()
        }
        _ => false,
    }
}

fn restore(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let (id, key) = (draw.database(world)?, draw.pick(world.backups.keys().cloned())?);
    let system_backup = draw.below(4) == 0;
    Some(Drawn::new(restored(&id, &key, true), move |caller| async move {
        let body = json!({"s3_key": key, "force_overwrite": true, "create_system_backup": system_backup});
        caller.task(&format!("/databases/{id}/restore"), body).await
    }))
}

fn restore_as_new(draw: &mut Draw, world: &World) -> Option<Drawn> {
    let key = draw.pick(world.backups.keys().cloned())?;
    Some(restore_of(draw, &key))
}

/// A new database from this backup.
pub(crate) fn restore_of(draw: &mut Draw, key: &str) -> Drawn {
    let (id, key) = (format!("kg{}", 100 + draw.fresh()), key.to_owned());
    Drawn::new(restored(&id, &key, false), |caller| async move {
        caller
            .task(&format!("/databases/{id}/restore"), json!({"s3_key": key}))
            .await
    })
}
