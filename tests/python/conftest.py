"""AWS as an independent emulator plays it: moto, over HTTP, with the official SDK."""

import logging
import os
import pathlib
import re
import urllib.request

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

REPOSITORY = pathlib.Path(__file__).parents[2]
TEMPLATES = REPOSITORY / "cloudformation"
REGION = "eu-central-1"
WAIT = {"Delay": 1, "MaxAttempts": 60}

logging.getLogger("werkzeug").setLevel(logging.ERROR)
os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION=REGION)
os.environ.pop("AWS_ENDPOINT_URL", None)


class Tagged(yaml.SafeLoader):
    """Reads a template; `!Ref x` and its like become `{"Ref": x}`."""


def _tagged(loader, suffix, node):
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    return {suffix: loader.construct_scalar(node)}


Tagged.add_multi_constructor("!", _tagged)


def read_template(name):
    return yaml.load((TEMPLATES / f"{name}.yaml").read_text(), Tagged)


def check_parameters(template, parameters):
    """What CloudFormation refuses before it makes anything; the emulator (moto 5.2) looks for missing ones only.

    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/parameters-section-structure.html
    """
    declared = read_template(template).get("Parameters", {})
    if unknown := parameters.keys() - declared.keys():
        raise ValueError(f"Parameters: {sorted(unknown)} do not exist in the template")
    for name, value in parameters.items():
        rule, text = declared[name], str(value)
        of_list = rule["Type"] == "CommaDelimitedList"
        for one in text.split(",") if of_list else [text]:
            if "AllowedPattern" in rule and not re.fullmatch(rule["AllowedPattern"], one):
                raise ValueError(f"Parameter {name} failed to satisfy constraint: {rule['ConstraintDescription']}")
            if "AllowedValues" in rule and one not in rule["AllowedValues"]:
                raise ValueError(f"Parameter {name} must be one of {rule['AllowedValues']}")
            if rule["Type"] == "Number" and not rule["MinValue"] <= float(one) <= rule["MaxValue"]:
                raise ValueError(f"Parameter {name} must be from {rule['MinValue']} to {rule['MaxValue']}")


class Aws:
    """One account of the emulator."""

    def __init__(self, url):
        self.url = url

    def client(self, service):
        return boto3.client(service, endpoint_url=self.url, region_name=REGION)

    def reset(self):
        """Nothing is left of what a test made."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")).close()

    def create_stack(self, name, template, parameters):
        """Its outputs. Not by a change set, since the emulator then gives none (moto 5.2)."""
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(StackName=name, **self._stack(template, parameters))
        cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig=WAIT)
        stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def change_stack(self, name, template, parameters):
        """Changes a stack by a change set. The emulator does not list what a parameter changes, but does it."""
        cloudformation = self.client("cloudformation")
        change = cloudformation.create_change_set(
            StackName=name, ChangeSetName="change", ChangeSetType="UPDATE", **self._stack(template, parameters)
        )["Id"]
        cloudformation.get_waiter("change_set_create_complete").wait(ChangeSetName=change, WaiterConfig=WAIT)
        cloudformation.execute_change_set(ChangeSetName=change)
        cloudformation.get_waiter("stack_update_complete").wait(StackName=name, WaiterConfig=WAIT)

    @staticmethod
    def _stack(template, parameters):
        check_parameters(template, parameters)
        return {
            "TemplateBody": (TEMPLATES / f"{template}.yaml").read_text(),
            "Parameters": [{"ParameterKey": key, "ParameterValue": str(value)} for key, value in parameters.items()],
            "Capabilities": ["CAPABILITY_IAM"],
            "Tags": [{"Key": "graphplane.dev/cluster", "Value": "c1"}],
        }

    def delete_stack(self, name):
        cloudformation = self.client("cloudformation")
        cloudformation.delete_stack(StackName=name)
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=name, WaiterConfig=WAIT)


@pytest.fixture(scope="session")
def server():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(server):
    account = Aws(server)
    yield account
    account.reset()
