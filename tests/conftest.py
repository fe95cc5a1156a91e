"""Settings that libraries read when they are first imported; nothing here is a fixture."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # threads that spin for ever starve the other processes of a test
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # tests never reach for a hub
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
