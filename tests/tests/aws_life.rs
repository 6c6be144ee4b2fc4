//! The life of graphs on AWS, played by moto, with the real operator and real agents: whatever call is cut off or fails, the
//! end is the same.
#![allow(missing_docs, clippy::unwrap_used)]

mod aws_life {
    pub(crate) mod lives;
}

use aws_life::lives::{Life, seed};
use graphplane_tests::{
    Plane,
    emulator::{Emulator, Fault, Side, judge, statements, taken_by_machines, taken_by_operator},
    repository,
};
use serde_json::Value;
use std::collections::BTreeSet;

const TOP_ROUTES: &str = "MATCH (a:Airport)-[r:Route]->(b:Airport) \
     RETURN a.iata, b.iata, r.flights ORDER BY r.flights DESC, a.iata LIMIT 5";

/// The example's graph on a tier of AWS.
fn airports() -> String {
    let text = std::fs::read_to_string(repository().join("examples/airports/graph.yaml")).unwrap();
    let (_, graph) = text.split_once("\n---\n").unwrap();
    format!("{}\n---\n{}", Life::TIER, graph.replace("tier: laptop", "tier: small"))
}

fn epoch(plane: &Plane) -> u64 {
    let path = "jsonpath={.items[0].status.epoch}";
    plane
        .kubectl(&["get", "graphnodes", "-o", path])
        .ok()
        .parse()
        .unwrap_or(0)
}

#[test]
fn a_graph_lives_on_aws_and_survives_its_machine() {
    let aws = Emulator::start();
    let plane = Plane::on_aws(&aws);
    assert_eq!(
        plane.kubectl(&["get", "tiers", "-o", "name"]).ok(),
        "",
        "nobody asked for one"
    );
    plane.kubectl_with(&["apply", "-f", "-"], Some(Life::TIER)).ok();
    plane.until("the tier has its stack", || {
        aws.stacks() == [("graphplane-tier-small".to_owned(), "CREATE_COMPLETE".to_owned())]
    });
    plane.apply_until_ready(&airports(), "airports");
    assert_eq!((aws.instances().len(), aws.volumes().len()), (1, 1));
    let folder = repository().join("examples/airports");
    plane.graphplane(&["load", "airports", folder.to_str().unwrap()]).ok();
    let answer = plane.query("airports", TOP_ROUTES);
    assert_eq!(answer.len(), 5);
    plane.graphplane(&["backup", "airports", "--name", "b1", "--wait"]).ok();
    assert!(aws.objects("backups/").iter().any(|key| key.ends_with("manifest.json")));
    assert!(
        aws.rows().iter().any(|row| row.starts_with("graph/")),
        "{:?}",
        aws.rows()
    );

    // The machine dies. Another one takes the disk, under a higher epoch.
    let (before, first) = (epoch(&plane), aws.instances());
    aws.host().kill_instance(&first[0]);
    plane.until("another machine runs", || {
        let running = aws.host().running();
        running.len() == 1 && running != first
    });
    plane.until("the graph answers", || {
        plane.graphplane(&["query", "airports", "RETURN 1"]).code == Some(0)
    });
    assert_eq!(plane.query("airports", TOP_ROUTES), answer);
    assert!(epoch(&plane) > before);
    assert_eq!((aws.instances().len(), aws.volumes().len()), (1, 1));
    plane.until_ready("airports");

    // A tier of other machines: the graph moves with its disk.
    let types = r#"{"spec": {"instance": {"types": ["r7g.large"]}}}"#;
    plane
        .kubectl(&["patch", "tier", "small", "--type=merge", "-p", types])
        .ok();
    plane.until("the stack has the type", || {
        aws.stacks() == [("graphplane-tier-small".to_owned(), "UPDATE_COMPLETE".to_owned())]
    });
    plane.until("the graph answers as before", || {
        plane.graphplane(&["query", "airports", "RETURN 1"]).code == Some(0)
    });
    assert_eq!(plane.query("airports", TOP_ROUTES), answer);

    plane.kubectl(&["delete", "graph", "airports", "--timeout=240s"]).ok();
    plane.kubectl(&["delete", "tier", "small", "--timeout=240s"]).ok();
    plane.until("nothing is left but what the policy keeps", || {
        aws.leftovers() == BTreeSet::new()
    });
    plane.until("the registries are empty", || aws.rows().is_empty());
    assert!(
        !aws.objects("backups/").is_empty(),
        "the policy is to keep a last backup"
    );
    assert_eq!(aws.violations(), Vec::<String>::new());

    // Nothing was called that the policies do not allow.
    let log = aws.proxy().log();
    let cluster = aws.cluster().unwrap();
    let values = [
        ("ClusterId", cluster.as_str()),
        ("ObjectBucket", "graphplane-objects"),
        ("RegistryPrefix", "graphplane"),
    ];
    let operator = judge(&statements("operator", &values), &taken_by_operator(&log));
    assert_eq!(operator.denied, BTreeSet::new());
    let values = [
        ("ObjectBucket", "graphplane-objects"),
        ("ArtifactBucket", "graphplane-artifacts"),
    ];
    let machines = judge(&statements("tier", &values), &taken_by_machines(&log));
    assert_eq!(machines.denied, BTreeSet::new());
}

#[test]
fn a_fleet_serves_seeds_on_aws() {
    const FLEET: &str = "
apiVersion: graphplane.dev/v1alpha1
kind: Replica
metadata: {name: readers, namespace: default}
spec: {graph: g1, replicas: 2, publish: {onChange: true, minIntervalSeconds: 1}}
";
    let aws = Emulator::start();
    let plane = Plane::on_aws(&aws);
    plane.apply_until_ready(&[Life::TIER, Life::GRAPH].concat(), "g1");
    let writer = aws.instances();
    plane.query("g1", "UNWIND range(1, 20) AS id CREATE (:N {id: id})");
    plane.kubectl_with(&["apply", "-f", "-"], Some(FLEET)).ok();
    let status = || -> Value {
        let object = plane.kubectl(&["get", "replica", "readers", "-o", "json"]).ok();
        serde_json::from_str::<Value>(&object).unwrap()["status"].clone()
    };
    plane.until("two machines serve the newest seed", || status()["readyReplicas"] == 2);
    assert_eq!(aws.instances().len(), 3);
    // Nothing stands behind the balancer's name in the emulator: that reads go to it, and to the writer where it does not
    // answer, is shown in api/tests/api/replicas.rs. This is an answer of the writer.
    let body = serde_json::json!({"cypher": "MATCH (n:N) RETURN count(*) AS n"});
    let answer = plane.rest("POST", "/v1/graphs/g1/query", Some(&body));
    assert_eq!(
        (answer.status, &answer.json()["data"][0]["n"]),
        (200, &serde_json::json!(20))
    );
    plane.kubectl(&["delete", "replica", "readers", "--timeout=240s"]).ok();
    plane.until("the fleet's machines are gone", || aws.instances() == writer);
    plane.kubectl(&["delete", "graph", "g1", "--timeout=240s"]).ok();
    plane.kubectl(&["delete", "tier", "small", "--timeout=240s"]).ok();
    plane.until("nothing is left", || aws.leftovers() == BTreeSet::new());
    assert_eq!(aws.violations(), Vec::<String>::new());
}

#[test]
fn machines_come_from_where_there_are_some() {
    let aws = Emulator::start();
    let types = ["m7g.large", "r7g.large"];
    let short = |zone: &str, of_type: &str| (zone.to_owned(), of_type.to_owned());
    aws.proxy().set(|knobs| {
        knobs.short.extend(types.map(|of_type| short("eu-central-1a", of_type)));
        knobs.short.extend([short("eu-central-1b", "m7g.large")]);
    });
    let mut plane = Plane::on_aws(&aws);
    Life::new(&aws).run(&mut plane, None);
    let log = aws.proxy().log();
    let started = log
        .iter()
        .filter(|entry| entry.call.action == "RunInstances" && entry.answer.ok());
    let types: BTreeSet<&str> = started.map(|entry| entry.call.param("InstanceType")).collect();
    assert_eq!(types, BTreeSet::from(["r7g.large"]));
}

/// The numbers of the calls that are cut off: all of them, or some that the seed picks.
fn cuts(calls: usize, some: usize) -> Vec<usize> {
    if std::env::var_os("GRAPHPLANE_ALL_CUTS").is_some() {
        return (0..calls).collect();
    }
    let seed = seed();
    let step = calls.div_ceil(some).max(1);
    println!("GRAPHPLANE_SEED={seed} picks every {step}th of {calls} calls; GRAPHPLANE_ALL_CUTS=1 takes all");
    (seed as usize % step..calls).step_by(step).collect()
}

#[test]
fn an_operator_that_dies_at_any_call_is_followed_by_one_that_ends_it() {
    let aws = Emulator::start();
    let mut plane = Plane::on_aws(&aws);
    let life = Life::new(&aws);
    let calls = life.run(&mut plane, None);
    for number in cuts(calls, 3) {
        for side in [Side::Before, Side::After] {
            println!("the operator dies {side:?} call {number} of {calls}");
            life.run(&mut plane, Some((number, side)));
        }
    }
}

#[test]
fn a_call_that_fails_once_is_made_once() {
    let aws = Emulator::start();
    let mut plane = Plane::on_aws(&aws);
    let life = Life::new(&aws);
    let calls = life.run(&mut plane, None);
    for number in cuts(calls, 2) {
        for fault in [Fault::Throttle, Fault::FailAfter, Fault::BreakAfter] {
            println!("call {number} of {calls} ends with {fault:?}");
            aws.proxy().fail(aws.proxy().changes() + number, fault);
            life.run(&mut plane, None);
        }
    }
}

#[test]
fn what_is_not_seen_at_once_is_not_made_twice() {
    let aws = Emulator::start();
    aws.proxy().set(|knobs| (knobs.unseen, knobs.on_the_way) = (3, 2));
    let mut plane = Plane::on_aws(&aws);
    Life::new(&aws).run(&mut plane, None);
}
