//! Seeds of one graph: a writer publishes them, and a replica takes them up.

use super::{Draw, Drawn, Operation, Victim, copy_graph, copy_vectors};
use crate::{history::Outcome, world::World};
use serde_json::{Value, json};

pub(crate) const SEEDS: &[Operation] = &[
    Operation {
        name: "publish",
        draw: publish,
        marks: &[("tmp", "backup-"), ("objects/seeds/kg1/0", "")],
    },
    Operation {
        name: "seed swap",
        draw: swap,
        marks: &[("seeds/kg1", "")],
    },
];

/// The graph that has seeds, and where they are.
pub(crate) const SEEDED: &str = "kg1";
pub(crate) const PREFIX: &str = "seeds/kg1";

/// The graph and its vectors are copied at one moment each, and published at another.
fn publish(draw: &mut Draw, world: &World) -> Option<Drawn> {
    world.seeds.as_ref()?;
    world.databases.get(SEEDED)?;
    let copied = format!("seed {}", draw.fresh());
    let mut steps = vec![copy_graph(SEEDED, &copied), copy_vectors(SEEDED, &copied)];
    steps.push(Box::new(move |world: &mut World| {
        let (Some(seed), Some(seeds)) = (world.copies.remove(&copied), world.seeds.as_mut()) else {
            return false;
        };
        seeds.published = Some(seed);
        true
    }));
    Some(Drawn::of(steps, |caller| async move {
        let body = json!({"backup_type": "replica", "destination": {"key": PREFIX}});
        caller.task(&format!("/databases/{SEEDED}/backup"), body).await
    }))
}

/// If there is something newer than what is served.
fn swap(_: &mut Draw, world: &World) -> Option<Drawn> {
    let seeds = world.seeds.as_ref()?;
    (seeds.published != seeds.served).then(take_up)
}

/// The replica has what is published.
pub(crate) fn take_up() -> Drawn {
    let step = |world: &mut World| {
        let seeds = world.seeds.as_mut();
        seeds.map(|seeds| seeds.served = seeds.published.clone()).is_some()
    };
    let drawn = Drawn::new(step, |caller| async move {
        let looked = caller.post("/admin/seed/refresh?wait_seconds=300", json!({})).await?;
        let seed = &looked["seeds"][0];
        let served = &seed["served"];
        let is_latest = ["epoch", "version"]
            .iter()
            .all(|field| served[field] == seed["latest"][field]);
        match is_latest && seed["error"] == Value::Null && *served != Value::Null {
            true => Ok(looked),
            false => Err(Outcome::Unknown(looked.to_string())),
        }
    });
    Drawn {
        victim: Victim::Replica,
        ..drawn
    }
}
