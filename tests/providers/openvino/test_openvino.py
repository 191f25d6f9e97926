"""provider=openvino as a provider: what it loads and refuses, what it says of itself, whole runs and what ends them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.config.schema import CONF_DIR, RunConfig
from runner.errors import ConfigError, ModelError
from runner.providers.factory import build
from runner.providers.openvino import OpenVinoProvider, files
from runner.providers.openvino.codec import Codec
from runner.providers.transformers import TransformersProvider
from runner.record.folder import RunFolder
from runner.types import Completion, Message, Prompt
from tests import processes
from tests.conftest import Compose
from tests.factories import prompts, prompts_file, summary_of
from tests.processes import Process
from tests.providers.openvino.models import answers, write_gguf

SMOLLM2 = "embedded/SmolLM2-135M-Instruct"


@pytest.fixture
def tiny(config: Compose, tiny_gguf: Path) -> Callable[..., RunConfig]:
    settings = (f"model.id={tiny_gguf}", "provider.precision=f32", "generation.max_tokens=12")
    return lambda *overrides: config("provider=openvino", *settings, *overrides)


CONVERSATIONS = [
    *(
        (Message(role="user", content=text),)
        for text in (
            "Hello", "  blanks before and after  ", "tabs\tand\nlines\n\n\nthree", "CRLF\r\nline", "don't we'll I'M",
            "12345 6,789.01 x² ½ Ⅷ ٣", "one per line.\n\n1. first\n2. second", "a  1   2", "日本語、漢字", "é e\u0301 ü",
            "emoji 😀👩‍👩‍👧 🇩🇪", "<|im_end|> inside <|im_start|>user\nhi", "<|endoftext|>", "a" * 300, "", "   ", "\n",
            "def f(x):\n    return x  # why\n\t\tif", "العربية हिन्दी", "x\0y", "\ufeffbom\u00a0\u2003", "%$#@!~`^&*()_+",
        )
    ),
    (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Hi 1"),
        Message(role="assistant", content="Hello  2"),
        Message(role="user", content="And\n\n3?"),
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def smollm2(config: Compose) -> Iterator[OpenVinoProvider]:
    """The embedded model, loaded once: reading its GGUF file takes seconds."""
    with build(config("provider=openvino")) as provider:
        assert isinstance(provider, OpenVinoProvider)
        yield provider


@pytest.mark.real_model
@pytest.mark.parametrize("use_template", [True, False])
def test_the_input_tokens_of_the_embedded_model_are_those_of_the_transformers_provider(
    use_template: bool, smollm2: OpenVinoProvider, config: Compose
):
    ours = Codec(smollm2._pipeline.get_tokenizer(), files.read(SMOLLM2), use_template=use_template)
    theirs = build(config("provider=transformers", f"provider.chat_template={use_template}"))
    assert isinstance(theirs, TransformersProvider)
    demo = [json.loads(line)["prompt"] for line in (CONF_DIR / "prompts" / "demo.jsonl").read_text().splitlines()]
    asked = [*CONVERSATIONS, *((Message(role="user", content=text),) for text in demo)]
    for prompt in (Prompt(id="p", messages=messages) for messages in asked):
        assert ours.encode(prompt).data.flatten().tolist() == theirs._encoder.encode(prompt), prompt


@pytest.mark.real_model
def test_the_text_of_every_token_of_the_embedded_model_is_that_of_the_transformers_provider(
    smollm2: OpenVinoProvider, config: Compose
):
    theirs = build(config("provider=transformers"))
    assert isinstance(theirs, TransformersProvider)
    tokenizer = theirs._encoder.tokenizer
    for token in range(len(tokenizer)):
        assert smollm2._codec.decode([token]) == tokenizer.decode([token], skip_special_tokens=True), token
    cut = tokenizer("I like 😀")["input_ids"][:-1]
    assert smollm2._codec.decode(cut) == tokenizer.decode(cut) == "I like \ufffd"


@pytest.mark.real_model
def test_the_embedded_model_answers_and_says_what_was_resolved(smollm2: OpenVinoProvider, config: Compose):
    params = config("provider=openvino", "generation.max_tokens=12").params()
    asked = prompts("What is the capital of France?", "What is the capital of Italy?")
    texts = {p.id: r.answers[0].text for p, r in smollm2.generate_continuously(asked, params, 2)}
    assert "Paris" in texts["p0"]
    assert "Rome" in texts["p1"]
    described = smollm2.describe()
    assert described["context_length"] == 8192
    assert (described["device"], described["model_format"], described["chat_template"]) == ("CPU", "gguf", True)
    assert described["rounds_weights"] is True
    assert described["dtype"] in ("bfloat16", "float32")
    assert described["kv_cache_dtype"] == "uint8"


def test_f32_computes_everything_in_float32_and_the_caches_precision_can_be_chosen(tiny: Callable[..., RunConfig]):
    described = {}
    for settings in ((), ("provider.kv_cache_precision=u8", "provider.cache_gb=1"), ("provider.precision=auto",)):
        with build(tiny(*settings)) as provider:
            described[settings] = provider.describe()
    exact, small, chosen = described.values()
    assert (exact["dtype"], exact["kv_cache_dtype"], exact["dynamic_quantization_group_size"]) == (
        "float32",
        "float32",
        0,
    )
    assert (small["dtype"], small["kv_cache_dtype"], small["cache_gb"]) == ("float32", "uint8", 1)
    assert (chosen["kv_cache_dtype"], chosen["dynamic_quantization_group_size"]) == ("uint8", 32)
    assert exact["threads"] >= 1
    assert exact["rounds_weights"] is False, "half floats are read as they are"


def test_a_model_without_a_template_and_chat_template_false_take_the_plain_text(
    tiny: Callable[..., RunConfig], tmp_path: Path
):
    plain = write_gguf(tmp_path / "plain.gguf", template=None)
    expected = answers(tiny("provider.chat_template=false"), "abc")["abc", 0]
    assert expected.usage is not None
    assert expected.usage.input_tokens == 3
    with build(tiny(f"model.id={plain}")) as provider:
        assert provider.describe()["gen_ai.operation.name"] == "text_completion"
    assert answers(tiny(f"model.id={plain}"), "abc")["abc", 0].token_ids == expected.token_ids


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            ("model.id=nowhere.gguf",),
            ModelError,
            r"'nowhere\.gguf' is neither a GGUF file .* `optimum-cli export openvino",
        ),
        (("model.id=HuggingFaceTB/SmolLM2-135M-Instruct",), ModelError, r"neither a GGUF file .* nor a folder"),
        (("model.id=embedded/none",), ModelError, "no such embedded model: choose one of embedded/SmolLM2"),
        (("model.revision=main",), ConfigError, r"model\.revision='main': provider 'openvino' loads files"),
        (("provider.device=GPU.7",), ConfigError, r"provider\.device='GPU\.7': OpenVINO finds on this machine: .*CPU"),
        (("provider.cache_gb=100000",), ModelError, r"provider\.cache_gb=100000\): .*larger than available memory"),
    ],
)
def test_what_cannot_be_loaded_is_one_message(
    settings: tuple[str, ...], error: type[Exception], message: str, tiny: Callable[..., RunConfig]
):
    with pytest.raises(error, match=message), build(tiny(*settings)):
        pass


def test_files_that_the_engine_cannot_read_are_one_message(
    tiny: Callable[..., RunConfig], tiny_gguf: Path, tmp_path: Path
):
    headless = tmp_path / "headless.gguf"
    headless.write_bytes(tiny_gguf.read_bytes().replace(b"llama", b"lambs"))  # an architecture that nobody knows
    (tmp_path / "ir").mkdir()
    (tmp_path / "ir" / "openvino_model.xml").write_text("no XML")
    for model in (headless, tmp_path / "ir"):
        with (
            pytest.raises(ModelError, match=rf"model\.id='{model}' cannot be loaded on CPU"),
            build(tiny(f"model.id={model}")),
        ):
            pass


def test_a_batch_size_that_no_step_can_take_is_refused(tiny: Callable[..., RunConfig]):
    config = tiny("provider.max_batch_tokens=4")
    with (
        build(config) as provider,
        pytest.raises(ConfigError, match=r"batch\.size=5 .* raise provider\.max_batch_tokens"),
    ):
        assert isinstance(provider, OpenVinoProvider)
        list(provider.generate_continuously(prompts("a"), config.params(), 5))
    whole, in_steps = (
        answers(tiny(f"provider.max_batch_tokens={tokens}", "batch.size=4"), "a", "zz", "abc", "12")
        for tokens in (256, 4)
    )
    assert {key: a.token_ids for key, a in in_steps.items()} == {key: a.token_ids for key, a in whole.items()}


ALONE = """
import json, sys
sys.modules["torch"] = sys.modules["transformers"] = None
from runner.cli.main import main
sys.exit(main())
"""


def test_a_run_needs_neither_torch_nor_transformers_and_leaves_a_whole_record(tiny_gguf: Path, tmp_path: Path):
    settings = (
        "provider=openvino",
        f"model.id={tiny_gguf}",
        "tracking=off",
        "generation.max_tokens=8",
        "hydra.run.dir=r",
    )
    command = [sys.executable, "-c", ALONE, *settings, *prompts_file(tmp_path, 3)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = list(RunFolder(tmp_path / "r").outcomes.read())
    assert len(outcomes) == 3
    for outcome in outcomes:
        assert isinstance(outcome, Completion)
        assert outcome.token_ids
        assert len(outcome.timing.chunk_gaps_s) == len(outcome.token_ids) - 1
    environment = json.loads((tmp_path / "r" / "environment.json").read_text())
    assert environment["provider"]["gen_ai.provider.name"] == "openvino"
    assert {"openvino", "openvino-tokenizers"} <= environment["packages"].keys()
    metrics = summary_of(tmp_path / "r").metrics
    assert {"time_to_first_token_p50_s", "inter_token_latency_p50_s", "inter_chunk_latency_p50_s", "load_s"} <= set(
        metrics
    )
    assert not {"prompt_padding_ratio", "tail_wait_ratio"} & set(metrics), "nothing is padded, no row waits"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_run_is_resumed_to_the_texts_of_an_uninterrupted_one(
    number: signal.Signals, code: int, tiny_gguf: Path, tmp_path: Path
):
    settings = [
        *("provider=openvino", f"model.id={tiny_gguf}", "provider.precision=f32", "tracking=off", "batch.size=4"),
        *("batch.warmup=0", "generation=sampled", "generation.max_tokens=150", *prompts_file(tmp_path, 120)),
    ]

    def start(*arguments: str) -> Process:
        return processes.start(arguments, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    whole, process = start("runner", *settings, "hydra.run.dir=whole"), start("runner", *settings, "hydra.run.dir=r")
    record = tmp_path / "r" / "outcomes.jsonl"
    while not (record.exists() and record.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(number)
    assert process.wait(60) == code
    assert 5 <= record.read_bytes().count(b"\n") < 120
    assert start("runner.resume", "r").wait(60) == 0
    assert whole.wait(60) == 0
    texts = [
        {o.prompt_id: o.token_ids for o in RunFolder(tmp_path / name).outcomes.read() if isinstance(o, Completion)}
        for name in ("r", "whole")
    ]
    assert len(texts[1]) == 120
    assert texts[0] == texts[1], "the seed of an answer follows from its prompt"
