//! Stacks through change sets, against the emulator.

use crate::moto::Account;
use graphplane_core::stack_plan::{self, Seen, Step};
use graphplane_crds::Tier;
use graphplane_operator::provider::Provider;
use graphplane_operator::provider::aws::CloudFormation;
use graphplane_operator::provider::aws::deploy::{DeployError, Mend};
use graphplane_operator::provider::stacks::{ChangeSetState, StackRequest, Stacks};
use serde_json::json;

fn tier(name: &str, type_: &str) -> Tier {
    let spec = json!({"memory": {"nodeMiB": 100, "perDatabaseMiB": 10}, "databasesPerNode": 2,
        "instance": {"types": [type_]}});
    let mut tier = Tier::new(name, serde_json::from_value(spec).unwrap());
    tier.metadata.uid = Some(format!("uid-of-{name}"));
    tier
}

/// The account of a test, with a VPC that exists.
async fn account(cluster: &str) -> Account {
    let mut account = Account::open(cluster).await;
    let vpcs = account.ec2.describe_vpcs().send().await.unwrap();
    account.settings.vpc_id = vpcs.vpcs()[0].vpc_id().unwrap().to_owned();
    account
}

fn request(account: &Account, tier: &Tier) -> StackRequest {
    account.provider().tier_stack(tier).unwrap()
}

/// Makes or changes a stack as the operator does.
async fn make(stacks: &CloudFormation, want: &StackRequest) {
    let proposed = stacks.propose(want).await.unwrap();
    assert_eq!(proposed.state, ChangeSetState::Ready, "{proposed:?}");
    stacks.execute(&want.name, &proposed.name).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_proposed_made_changed_and_deleted() {
    let account = account("stacks-life").await;
    let stacks = CloudFormation::new(&account.config);
    let want = request(&account, &tier("life", "m7g.large"));
    assert_eq!(stacks.find(&want.name).await.unwrap(), None);

    let proposed = stacks.propose(&want).await.unwrap();
    assert_eq!(proposed.state, ChangeSetState::Ready);
    assert!(
        proposed
            .changes
            .iter()
            .any(|c| c.action == "Add" && c.type_ == "AWS::IAM::Role")
    );
    // An operator that knows nothing of it finds the same one.
    let again = CloudFormation::new(&account.config).propose(&want).await.unwrap();
    assert_eq!(again, proposed);
    stacks.execute(&want.name, &proposed.name).await.unwrap();

    let made = stacks.find(&want.name).await.unwrap().unwrap();
    assert_eq!(
        (made.status.as_str(), made.digest()),
        ("CREATE_COMPLETE", Some(want.digest().as_str()))
    );
    assert_eq!(
        (made.tags["cluster"].as_str(), made.tags["name"].as_str()),
        ("stacks-life", "life")
    );
    assert!(made.asked.is_some());
    let listed = account.provider().describe().await.unwrap();
    assert_eq!(listed.stacks[&want.name].id, made.id);
    let seen = Seen {
        stack: Some(made.clone()),
        ..Seen::default()
    };
    let now = jiff::Timestamp::now();
    assert_eq!(stack_plan::keep(&want.wanted(), &seen, now).step, None);

    // The same again is nothing to do, and the second answer costs no call.
    let same = stacks.propose(&want).await.unwrap();
    assert_eq!(same.state, ChangeSetState::Empty);
    assert_eq!(stacks.propose(&want).await.unwrap(), same);

    let other = request(&account, &tier("life", "r7g.large"));
    assert_eq!(
        stack_plan::keep(
            &other.wanted(),
            &Seen {
                stack: Some(stack_plan::StackFacts {
                    asked: None,
                    ..made.clone()
                }),
                ..Seen::default()
            },
            now
        )
        .step,
        Some(Step::Propose)
    );
    make(&stacks, &other).await;
    let changed = stacks.find(&want.name).await.unwrap().unwrap();
    assert_eq!((changed.status.as_str(), &changed.id), ("UPDATE_COMPLETE", &made.id));

    stacks.delete(&made.id).await.unwrap();
    assert_eq!(stacks.find(&want.name).await.unwrap(), None);
    stacks.delete(&made.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_is_refused_is_told() {
    let account = account("stacks-refused").await;
    let stacks = CloudFormation::new(&account.config);
    let mut want = request(&account, &tier("refused", "m7g.large"));
    make(&stacks, &want).await;
    // The name is taken for a second cluster: nothing is proposed.
    want.tags.insert("cluster".into(), "stacks-other".into());
    let refused = stacks.prepare(&want, false, Mend::Yes).await;
    assert!(
        matches!(&refused, Err(DeployError::Stack(why)) if why.contains("stacks-refused")),
        "{refused:?}"
    );
    let kept = stacks.remove(&want, false, |_| {}).await;
    assert!(matches!(kept, Err(DeployError::Stack(_))), "{kept:?}");
    let still = stacks.find(&want.name).await.unwrap().unwrap();
    assert_eq!(still.status, "CREATE_COMPLETE");
    stacks.delete(&still.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_leaves_nothing_behind() {
    let account = account("stacks-diff").await;
    let stacks = CloudFormation::new(&account.config);
    let want = request(&account, &tier("diff", "m7g.large"));
    let proposed = stacks.prepare(&want, false, Mend::No).await.unwrap().unwrap();
    assert!(!proposed.changes.is_empty());
    stacks.withdraw(&want.name, &proposed.name).await.unwrap();
    assert_eq!(stacks.find(&want.name).await.unwrap(), None);

    let proposed = stacks.prepare(&want, false, Mend::Yes).await.unwrap().unwrap();
    let mut told = vec![];
    let done = stacks
        .carry_out(&want, &proposed, |event| told.push(event.status.clone()))
        .await
        .unwrap();
    assert_eq!(done.status, "CREATE_COMPLETE");
    assert!(told.iter().any(|status| status == "CREATE_COMPLETE"), "{told:?}");
    // What is not named keeps the value that it has.
    let unnamed = StackRequest {
        parameters: [("Tier".to_owned(), "diff".to_owned())].into(),
        ..want.clone()
    };
    let kept = stacks.with_present_parameters(unnamed).await.unwrap();
    assert_eq!(kept.parameters["ObjectBucket"], want.parameters["ObjectBucket"]);
    assert!(stacks.remove(&want, false, |_| {}).await.unwrap());
    assert!(!stacks.remove(&want, false, |_| {}).await.unwrap());
}
