"""Encodes texts with whatever sentence-transformers this interpreter has; run by test_old_stack.py in another environment.

Standard input is JSON {"folders": {name: path}, "texts": [...]}; standard argument 1 is the .npz to write. Every folder is
encoded without a prompt and with each of its prompts by name: arrays "NAME/" and "NAME/PROMPT".
"""

import json
import sys

import numpy as np
import sentence_transformers
import torch
import transformers

torch.set_num_threads(1)
work = json.load(sys.stdin)
found = {}
for name, folder in work["folders"].items():
    model = sentence_transformers.SentenceTransformer(folder, device="cpu", trust_remote_code=False)
    for prompt in (None, *model.prompts):
        options = {"batch_size": len(work["texts"]), "show_progress_bar": False}
        vectors = model.encode(work["texts"], prompt_name=prompt, **options)
        found[f"{name}/{prompt or ''}"] = np.asarray(vectors, np.float32)
np.savez(sys.argv[1], **found)
print(sentence_transformers.__version__, transformers.__version__)
