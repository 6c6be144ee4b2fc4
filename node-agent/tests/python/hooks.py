"""What schemathesis does not know by itself: bodies that are files."""

import schemathesis
from hypothesis import strategies as st

for media_type in ("application/vnd.apache.parquet", "application/gzip"):
    schemathesis.openapi.media_type(media_type, st.binary(max_size=256))
