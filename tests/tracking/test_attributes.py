"""What a trace's span holds of a prompt and its answer."""

from dataclasses import replace

import pytest

from runner.pricing import Price, Rates
from runner.tracking.attributes import outcome_attributes
from runner.types import Message, Prompt, Usage
from tests.factories import completion, failure

PROMPT = Prompt(id="p", messages=(Message(role="system", content="Be brief."), Message(role="user", content="Hi\0")))
PRICE = Price(
    rates=(Rates(above_tokens=-1, input_usd=1.0, cached_input_usd=0.25, cache_written_usd=2.0, output_usd=4.0),),
    source="model.price",
)


def test_messages_have_the_parts_of_the_genai_conventions():
    attributes = outcome_attributes(PROMPT, replace(completion("p", text="Hello"), finish_reason="tool_calls"), None)
    assert attributes["gen_ai.input.messages"] == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "Hi\ufffd"}]},
    ]
    assert attributes["gen_ai.output.messages"] == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Hello"}], "finish_reason": "tool_call"}
    ]


def test_cost_and_tokens_of_a_cache_are_by_kind_of_token():
    usage = Usage(input_tokens=10, output_tokens=3, cached_input_tokens=4, cache_written_tokens=2, reasoning_tokens=1)
    attributes = outcome_attributes(PROMPT, replace(completion("p"), usage=usage), PRICE)
    # 4 tokens at 1, 4 cached at 0.25, 2 written at 2; 3 output tokens at 4
    assert attributes["mlflow.llm.cost"] == {"input_cost": 9.0, "output_cost": 12.0, "total_cost": 21.0}
    assert attributes["mlflow.chat.tokenUsage"] == {
        "input_tokens": 10,
        "output_tokens": 3,
        "total_tokens": 13,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 2,
    }
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 4
    assert attributes["gen_ai.usage.cache_creation.input_tokens"] == 2
    assert attributes["gen_ai.usage.reasoning.output_tokens"] == 1


def test_the_second_answer_to_a_prompt_has_no_cost_of_input():
    cost = outcome_attributes(PROMPT, completion("p", 10, 3, choice=1), PRICE)["mlflow.llm.cost"]
    assert cost == {"input_cost": 0.0, "output_cost": 12.0, "total_cost": 12.0}


def test_hardware_by_the_hour_has_no_cost_of_one_answer():
    by_hour = Price(
        rates=(Rates(above_tokens=-1, input_usd=0.0, cached_input_usd=0.0, cache_written_usd=0.0, output_usd=0.0),),
        source="model.price.usd_per_hour",
        usd_per_hour=3.0,
    )
    attributes = outcome_attributes(PROMPT, completion("p", 10, 3), by_hour)
    assert "mlflow.llm.cost" not in attributes, "0 dollars would be false"
    assert attributes["mlflow.llm.model"] == "", "else the store takes a list price"


def test_what_a_provider_does_not_have_is_absent():
    attributes = outcome_attributes(PROMPT, completion("p"), None)
    reasoning, cost = "gen_ai.usage.reasoning.output_tokens", "mlflow.llm.cost"
    assert not {reasoning, cost, "openai.response.system_fingerprint"} & attributes.keys()
    fingerprint = replace(completion("p"), system_fingerprint="fp_1")
    assert outcome_attributes(PROMPT, fingerprint, None)["openai.response.system_fingerprint"] == "fp_1"


@pytest.mark.parametrize("price", [None, PRICE])
def test_a_failure_has_its_error_and_neither_tokens_nor_cost(price: Price | None):
    attributes = outcome_attributes(PROMPT, failure("p"), price)
    assert attributes["error.type"] == "Refused"
    assert not [name for name in attributes if "usage" in name.lower() or "cost" in name or "output" in name]
