"""One thread per test: two can be slower than one on a busy machine, and sums must not depend on the split."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
