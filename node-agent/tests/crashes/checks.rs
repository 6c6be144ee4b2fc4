//! What has to be true after every start.

use super::{
    caller::Caller,
    fixture::{Agent, eventually},
    history::{Done, possible},
    observed,
    operations::PREFIX,
    orphans,
    world::{Content, World},
};
use serde_json::Value;
use std::{collections::BTreeSet, path::Path};

/// Files and tasks, before anything was touched.
pub(crate) async fn after_start(agent: &Agent, caller: &Caller) {
    let info = caller.get("/info").await.unwrap();
    let names = info["databases"].as_array().unwrap().iter();
    let databases: Vec<String> = names.map(|id| id.as_str().unwrap().to_owned()).collect();
    let orphans = orphans::on_the_volume(&agent.volume(), &databases).await;
    assert!(
        orphans.is_empty(),
        "files that belong to nothing: {orphans:?}; databases: {databases:?}"
    );
    eventually(
        "every task has ended",
        || async { unfinished(&caller.get("/tasks?limit=1000").await.unwrap()) },
        Vec::is_empty,
    )
    .await;
}

fn unfinished(tasks: &Value) -> Vec<Value> {
    let at_work = |task: &&Value| matches!(task["status"].as_str(), Some("pending" | "running"));
    tasks.as_array().unwrap().iter().filter(at_work).cloned().collect()
}

/// The worlds that what is there can be; at least one. `served` is what a replica has.
pub(crate) async fn explained(
    caller: &Caller,
    store: &Path,
    served: Option<&Content>,
    before: &BTreeSet<World>,
    done: &[Done],
) -> BTreeSet<World> {
    let databases = observed::databases(caller)
        .await
        .unwrap_or_else(|error| panic!("{error}; after {done:#?}"));
    let backups = orphans::backups(store);
    let published = orphans::published(&store.join(PREFIX));
    let worlds = possible(before, done);
    let fits = |world: &&World| {
        // The manifest says how many nodes the backup has; a system backup is in no world.
        let mut stored = backups.iter().filter(|(key, _)| key.starts_with("crash/"));
        let seeds = world.seeds.as_ref();
        world.databases == databases
            && seeds.and_then(|seeds| seeds.served.as_ref()) == served
            && seeds.and_then(|seeds| seeds.published.as_ref()).map(World::nodes) == published
            && stored.clone().count() == world.backups.len()
            && stored.all(|(key, nodes)| {
                world
                    .backups
                    .get(key)
                    .is_some_and(|content| World::nodes(content) == *nodes)
            })
    };
    let fitting: BTreeSet<World> = worlds.iter().filter(fits).cloned().collect();
    assert!(
        !fitting.is_empty(),
        "no order of what was done explains what is there.\ndone: {done:#?}\nfound: {databases:?}\nbackups: {backups:?}\n\
         nodes of the seed: {published:?}\nserved: {served:?}\nbefore:{}\npossible would have been:{}",
        list(before),
        list(&worlds),
    );
    fitting
}

/// A world a line.
fn list(worlds: &BTreeSet<World>) -> String {
    worlds.iter().map(|world| format!("\n  {world:?}")).collect()
}
