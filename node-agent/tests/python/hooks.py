"""What schemathesis does not know by itself: bodies that are files."""

import schemathesis
from hypothesis import strategies as st

schemathesis.openapi.media_type("application/vnd.apache.parquet", st.binary(max_size=256))
