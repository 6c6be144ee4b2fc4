"""Prints a template as JSON, `!Ref x` and its like as {"Ref": x}, for programs that read no YAML of CloudFormation."""

import json
import sys

from conftest import read_template

print(json.dumps(read_template(sys.argv[1]), default=str))
