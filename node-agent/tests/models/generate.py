#!/usr/bin/env python3
"""Writes the two tiny embedding models beside this file, and the vectors that ONNX Runtime gets from them.

    pip install onnx onnxruntime numpy tokenizers && python generate.py

Both are encoders of the shape of BERT (embeddings, self-attention with a mask, feed-forward, layer norms) with random
weights from a fixed seed, in the layout of sentence-transformers:
- `mean`: three inputs, named dynamic axes, mean pooling, normalised;
- `cls`: below `onnx/`, two inputs, axes without names, a second output before the one that counts, CLS pooling, not
  normalised, no `sentence_bert_config.json`.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).parent
WORDS = """graph database node edge table vector query company employee city people river mountain bank money loan risk
report quarter revenue profit loss europe zurich berlin the a of in and is was has with for to from by on at as it that
which who where when how many large small fast slow new old red green blue load backup restore search memory""".split()
TEXTS = [
    "",
    "graph",
    "The Graph Database",
    "company report: revenue and profit of the quarter",
    "Zürich is a large city with a river!",
    "who lends money? a bank, with risk",
    "xyzzy 漢字 unknowable",
    "a fast query in a small graph " * 20,
]


def vocabulary():
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"!?.,:;-'", *letters, *("##" + c for c in letters), *WORDS]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def tokenizer(vocab):
    special = lambda token: {"id": token, "ids": [vocab[token]], "tokens": [token]}
    return {
        "version": "1.0",
        # As published models have it: the length and the padding of somebody's training, which are not the model's.
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [
            {"id": vocab[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
        ],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                     {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    }


class Graph:
    """An ONNX graph under construction: every operator returns the name of what it makes."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def __call__(self, op, *inputs, **attributes):
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, value):
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def ints(self, *values):
        return self.constant(np.array(values, np.int64))

    def floats(self, *shape):
        return self.constant(self.random.normal(0, 0.3, shape).astype(np.float32))

    def linear(self, x, inner, outer):
        return self("Add", self("MatMul", x, self.floats(inner, outer)), self.floats(outer))

    def norm(self, x, size):
        scale = self.constant((1 + self.random.normal(0, 0.1, size)).astype(np.float32))
        return self("LayerNormalization", x, scale, self.floats(size), axis=-1, epsilon=1e-12)

    def scalar(self, value):
        return self.constant(np.float32(value))


def encoder(graph, types, vocab, positions, hidden, heads):
    """The hidden states, as a PyTorch exporter writes them: shapes are computed inside of the graph."""
    shape = graph("Shape", "input_ids")
    batch, length = (graph("Gather", shape, graph.ints(axis), axis=0) for axis in (0, 1))
    numbers = graph.constant(np.arange(positions, dtype=np.int64)[None, :])
    numbers = graph("Slice", numbers, graph.ints(0), length, graph.ints(1))
    x = graph("Gather", graph.floats(vocab, hidden), "input_ids", axis=0)
    if types:
        x = graph("Add", x, graph("Gather", graph.floats(2, hidden), "token_type_ids", axis=0))
    x = graph.norm(graph("Add", x, graph("Gather", graph.floats(positions, hidden), numbers, axis=0)), hidden)

    mask = graph("Cast", graph("Unsqueeze", "attention_mask", graph.ints(1, 2)), to=TensorProto.FLOAT)
    mask = graph("Mul", graph("Sub", graph.scalar(1), mask), graph.scalar(np.finfo(np.float32).min))
    split = graph("Concat", batch, length, graph.ints(heads), graph.ints(hidden // heads), axis=0)
    joined = graph("Concat", batch, length, graph.ints(hidden), axis=0)
    query, key, value = (graph("Reshape", graph.linear(x, hidden, hidden), split) for _ in range(3))
    query, value = (graph("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
    key = graph("Transpose", key, perm=[0, 2, 3, 1])
    scores = graph("Div", graph("MatMul", query, key), graph.scalar((hidden // heads) ** 0.5))
    attention = graph("Softmax", graph("Add", scores, mask), axis=-1)
    mixed = graph("Transpose", graph("MatMul", attention, value), perm=[0, 2, 1, 3])
    mixed = graph.linear(graph("Reshape", mixed, joined), hidden, hidden)
    x = graph.norm(graph("Add", x, mixed), hidden)

    wide = graph.linear(x, hidden, 2 * hidden)
    gate = graph("Add", graph("Erf", graph("Div", wide, graph.scalar(2 ** 0.5))), graph.scalar(1))
    wide = graph("Mul", graph("Mul", wide, gate), graph.scalar(0.5))
    return graph.norm(graph("Add", x, graph.linear(wide, 2 * hidden, hidden)), hidden)


def model(seed, types, vocab, positions, hidden, heads, axes, output):
    graph = Graph(seed)
    states = encoder(graph, types, vocab, positions, hidden, heads)
    graph.nodes.append(helper.make_node("Identity", [states], [output]))
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [*axes, hidden])]
    if not types:
        graph.nodes.append(helper.make_node("ReduceSum", ["attention_mask", graph.ints(1)], ["lengths"]))
        outputs.insert(0, helper.make_tensor_value_info("lengths", TensorProto.INT64, [axes[0], 1]))
    names = ["input_ids", "attention_mask"] + (["token_type_ids"] if types else [])
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in names]
    made = helper.make_graph(graph.nodes, "encoder", inputs, outputs, graph.weights)
    made = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def expected(path, tokens, limit, pooling, normalised, output):
    """One text at a time, so that nothing is padded."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tokens = Tokenizer.from_str(json.dumps(tokens))
    tokens.no_padding()
    tokens.enable_truncation(limit)
    vectors = []
    for text in TEXTS:
        ids = np.array([tokens.encode(text).ids], np.int64)
        every = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        given = {wanted.name: every[wanted.name] for wanted in session.get_inputs()}
        [states] = session.run([output], given)[0]
        vector = states.mean(axis=0) if pooling == "mean" else states[0]
        vector = vector / np.linalg.norm(vector) if normalised else vector
        vectors.append([round(float(number), 7) for number in vector])
    return {"texts": TEXTS, "vectors": vectors}


def write(directory, name, value):
    path = HERE / directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def make(directory, file, seed, types, hidden, heads, limit, pooling, normalised, axes, output):
    vocab, positions = vocabulary(), 64 if types else limit
    tokens = tokenizer(vocab)
    path = HERE / directory / file
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model(seed, types, len(vocab), positions, hidden, heads, axes, output), path)
    write(directory, "tokenizer.json", tokens)
    write(directory, "config.json", {"model_type": "bert", "hidden_size": hidden, "pad_token_id": 0,
                                     "max_position_embeddings": positions})
    if types:
        write(directory, "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")] + ([("2_Normalize", "Normalize")] if normalised else [])
    write(directory, "modules.json", [
        {"idx": number, "name": str(number), "path": part, "type": f"sentence_transformers.models.{kind}"}
        for number, (part, kind) in enumerate(kinds)
    ])
    write(directory, "1_Pooling/config.json", {
        "word_embedding_dimension": hidden, "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    })
    write(directory, "expected.json", expected(path, tokens, limit, pooling, normalised, output))


make("mean", "model.onnx", 1, True, 32, 4, 24, "mean", True, ["batch_size", "sequence_length"], "last_hidden_state")
make("cls", "onnx/model.onnx", 2, False, 16, 2, 32, "cls", False, [None, None], "token_embeddings")
