"""The conversations that each template is asked to render: what goes in, not what comes out."""


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def call(name, arguments, id=None):
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {"id": id, **made} if id else made


def result(content, id=None):
    made = {"role": "tool", "content": content}
    return {**made, "tool_call_id": id} if id else made


def text(words):
    return {"type": "text", "text": words}


IMAGE = {"type": "image"}

SINGLE = [user("Hello, who are you?")]
PAIR = [user("One plus one?"), assistant("Two.")]
SYSTEM = [system("Answer in one word."), user("Capital of France?"), assistant("Paris")]
SYSTEM_OPEN = SYSTEM[:2]
MULTI = [
    system("You tell short stories."),
    user("Tell one."),
    assistant("A fox met a hen."),
    user("And then?"),
    assistant("They talked."),
    user("About what?"),
]
MULTI_BARE = MULTI[1:]
UNICODE = [
    user("Größe: 5 µm – “naïve” ‘café’ 日本語 \U0001f980 e\u0301"),
    assistant("He said \"it's <b>fine</b> & done\" \\ back\\slash {{ braces }} {% tag %}"),
]
SPACES = [user("  \n two spaces before, a tab after\t \n"), assistant("\n\n  answer \u00a0\u3000 \n")]
CRLF = [user("line one\r\nline two\r\n"), assistant("\r\nyes\rno\r\n")]
EMPTY = [user(""), assistant("")]
EMPTY_SYSTEM = [system(""), user("Hi"), assistant("Ho")]
TWO_USERS = [user("One."), user("Two.")]
ASSISTANT_FIRST = [assistant("Hello!"), user("Hi.")]
UNKNOWN_ROLE = [user("Hi."), {"role": "robot", "content": "Beep."}]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, in °C & \"words\".",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city, e.g. <Zürich>"},
                "days": {"type": "integer", "description": "How many days", "default": 1},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Finds pages.",
        "parameters": {
            "type": "object",
            "properties": {
                "words": {"type": "array", "items": {"type": "string"}, "description": "Words to find"},
                "limit": {"type": ["integer", "string"], "description": "At most so many", "default": 10},
                "score": {"type": "number", "description": "Least score", "default": 0.5},
                "exact": {"type": "boolean", "description": "", "default": False},
                "where": {
                    "type": "object",
                    "properties": {"site": {"type": "string", "default": "any"}, "year": {"type": "integer"}},
                    "required": ["year"],
                },
                "rank": {"oneOf": [{"type": "string"}, {"type": "number"}]},
            },
            "required": ["words", "where"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "The time.", "parameters": {"type": "object", "properties": {}}},
}
TOOLS = [WEATHER, CLOCK]
ALL_TOOLS = [WEATHER, SEARCH, CLOCK]
DOCUMENTS = [
    {"title": "Emperor penguins", "text": "They are the tallest.\nThey swim."},
    {"title": "Little penguins", "text": "They are 33 cm tall & <blue>."},
]

ARGUMENTS = {"city": "Zürich \"old\" <town>", "days": 2}
CALLED = [
    user("Weather in Zürich?"),
    assistant("", tool_calls=[call("get_weather", ARGUMENTS, "call00001")]),
    result('{"temp": 21.5}', "call00001"),
]
ANSWERED = CALLED + [assistant("It is 21.5 degrees.")]
TWO_CALLS = [
    system("Use the functions."),
    user("Weather and time?"),
    assistant(
        "I look both up.",
        tool_calls=[call("get_weather", {"city": "Bern"}, "call00001"), call("clock", {}, "call00002")],
    ),
    result("sunny", "call00001"),
    result("12:30", "call00002"),
    assistant("Sunny, and half past twelve."),
    user("Thanks!"),
]
# Some APIs give a call's arguments as the JSON text and leave `content` null.
TEXT_ARGUMENTS = [
    user("Time?"),
    assistant(None, tool_calls=[call("clock", '{"zone": "UTC"}', "call00001")]),
    result("12:30", "call00001"),
    assistant("Half past twelve.", tool_calls=None),
]
THOUGHT = [
    user("7 times 6?"),
    assistant("<think>\nSeven sixes.\n</think>\n\nForty-two."),
    user("Plus one?"),
    assistant("<think>\nOne more.\n</think>\n\nForty-three."),
]
REASONED = [user("7 times 6?"), assistant("Forty-two.", reasoning_content="\nSeven sixes.\n")]
THINKING = [user("7 times 6?"), assistant("Forty-two.", thinking="Seven sixes.")]
PARTS = [
    {"role": "system", "content": [text("You see pictures.")]},
    {"role": "user", "content": [IMAGE, text("  What is this? "), text("And this?")]},
    {"role": "assistant", "content": [text("A crab. ")]},
    {"role": "user", "content": [text("Sure?")]},
]

BASE = {"bos_token": "<s>", "eos_token": "</s>"}
LLAMA3 = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
CHATML = {"eos_token": "<|im_end|>"}
GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>"}
TEXT_END = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
DEEPSEEK = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
COHERE = {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>"}
DATE = {"date_string": "26 Jul 2024"}


def case(messages, add_generation_prompt=False, tools=None, documents=None, **kwargs):
    """One case; what is None or empty is left out."""
    made = {"messages": messages, "add_generation_prompt": add_generation_prompt}
    optional = {"tools": tools, "documents": documents, "kwargs": kwargs}
    return made | {name: value for name, value in optional.items() if value}


PLAIN = [case(SINGLE, True), case(MULTI_BARE, True), case(UNICODE), case(SPACES), case(CRLF), case(EMPTY)]
WITH_SYSTEM = PLAIN + [case(SYSTEM), case(EMPTY_SYSTEM, True)]
ALTERNATING = [case(TWO_USERS), case(ASSISTANT_FIRST)]
TOOL_USE = [case(CALLED, True, TOOLS), case(ANSWERED, False, ALL_TOOLS), case(TWO_CALLS, True, TOOLS)]

# Template: (special tokens, cases).
CASES = {
    "chatml": (CHATML, WITH_SYSTEM),
    "command_a": (
        COHERE,
        [case(MULTI, True), case(MULTI_BARE, False, [CLOCK]), case(PAIR, True, ALL_TOOLS), case(SPACES)],
    ),
    "command_r": (
        COHERE,
        [
            case(SINGLE, True),
            case(SYSTEM_OPEN, True, documents=DOCUMENTS),
            case(MULTI, True),
            case(MULTI_BARE, False, documents=DOCUMENTS),
            case(SPACES),
            case(UNICODE),
            case([system("<b> & 'q'"), *CRLF], documents=DOCUMENTS[:1]),
        ]
        + ALTERNATING,
    ),
    "deepseek_r1": (
        DEEPSEEK,
        [
            case(SINGLE, True),
            case(THOUGHT, True),
            case([system("Be brief."), system("Be kind."), *PAIR]),
            case(
                [user("Time?"), assistant("", tool_calls=[call("clock", "{}")]), result("12:30"), assistant("Noon.")],
                True,
            ),
            case(
                [
                    user("Two clocks?"),
                    assistant("Both.", tool_calls=[call("clock", '{"zone": "UTC"}'), call("clock", "{}")]),
                    result("12:30"),
                    result("13:30"),
                ],
                True,
            ),
            case(SPACES),
            case(UNICODE),
        ],
    ),
    "deepseek_v3": (
        DEEPSEEK,
        [
            case(SINGLE, True),
            case(SINGLE, True, thinking=True),
            case(THOUGHT, thinking=True),
            case(MULTI, True, ALL_TOOLS),
            case(ANSWERED, False, TOOLS),
            case(TWO_CALLS, True),
            case(TEXT_ARGUMENTS, True),
            case(CRLF),
        ],
    ),
    "falcon3": (TEXT_END, WITH_SYSTEM[:7] + [case(SYSTEM_OPEN, True, TOOLS)]),
    "gemma2": (GEMMA, PLAIN + [case(SYSTEM)] + ALTERNATING),
    "gemma3": (GEMMA, WITH_SYSTEM + [case(PARTS, True), case(TWO_USERS), case([{"role": "user", "content": 5}])]),
    "glm4": (
        {"eos_token": "<|endoftext|>"},
        [
            case(SINGLE, True),
            case(SYSTEM_OPEN, True, enable_thinking=False),
            case(THOUGHT),
            case(REASONED),
            case(ANSWERED, True, ALL_TOOLS),
            case(TWO_CALLS, True, TOOLS),
            case(PARTS, True),
            case(SPACES),
            case(UNICODE),
        ],
    ),
    "gpt_oss": (
        {"bos_token": "<|startoftext|>", "eos_token": "<|return|>"},
        [
            case(SINGLE, True, **DATE),
            case(SYSTEM_OPEN, True, reasoning_effort="high"),
            case(THINKING),
            case([user("Hi"), assistant("Ho", reasoning="Greet back.")]),
            case(ANSWERED, False, ALL_TOOLS, **DATE),
            case(CALLED, True, TOOLS, model_identity="You are a test."),
            case(UNICODE),
            case([user("Hi"), result("early")]),
            case([user("Hi"), assistant("Ho", thinking="<|channel|>analysis")]),
        ],
    ),
    "granite3": (
        TEXT_END,
        [
            case(SINGLE, True, **DATE),
            case(SYSTEM, True),
            case(SINGLE, True, TOOLS, DOCUMENTS, **DATE),
            case(SINGLE, False, ALL_TOOLS, **DATE),
            case(
                SINGLE,
                True,
                documents=[{"doc_id": "a7", "text": "x"}],
                controls={"citations": True, "length": "short"},
                **DATE,
            ),
            case(SINGLE, True, thinking=True, **DATE),
            case([system("S"), *CRLF]),
            case([system("S"), *UNICODE]),
        ],
    ),
    "hermes3": (
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>"},
        [case(SINGLE, True), *TOOL_USE, case(UNICODE), case(CRLF)],
    ),
    "internlm2": (BASE, WITH_SYSTEM),
    "internlm3": (
        BASE,
        [
            case(SYSTEM_OPEN, True),
            case(MULTI, True, stop_after=3),
            case(UNKNOWN_ROLE),
            case(UNKNOWN_ROLE, skip_unknown=True),
            case(PARTS, True),
            case(TWO_CALLS, True, ALL_TOOLS),
            case(SPACES),
        ],
    ),
    "kimi_k2": (
        {"bos_token": "[BOS]", "eos_token": "[EOS]"},
        [
            case(SINGLE, True),
            case(SYSTEM),
            case([{**user("Hi"), "name": "ann"}, assistant("Ho")]),
            case(ANSWERED, False, TOOLS),
            case(TWO_CALLS, True, ALL_TOOLS),
            case(TEXT_ARGUMENTS, True),
            case(PARTS, True),
            case(SPACES),
        ],
    ),
    "llama2": (BASE, WITH_SYSTEM + ALTERNATING),
    "llama31": (
        LLAMA3,
        [
            case(SINGLE, True, **DATE),
            case(MULTI, True, **DATE),
            case(ANSWERED, False, TOOLS, **DATE),
            case(CALLED, True, ALL_TOOLS, tools_in_user_message=False, **DATE),
            case(TWO_CALLS, True, TOOLS, **DATE),
            case([system("Alone.")], False, TOOLS, **DATE),
            case(
                [user("Find."), assistant("", tool_calls=[call("brave_search", {"query": "crabs", "page": "1"})])],
                builtin_tools=["brave_search", "code_interpreter", "wolfram_alpha"],
                **DATE,
            ),
            case(
                [
                    user("Go."),
                    assistant("", tool_calls=[call("clock", {})]),
                    {"role": "ipython", "content": {"é": [1, 2.5, None, True]}},
                ],
                **DATE,
            ),
            case(SPACES, **DATE),
            case(UNICODE, custom_tools=[CLOCK], **DATE),
        ],
    ),
    "mistral_nemo": (
        BASE,
        [
            case(SINGLE, **DATE),
            case(MULTI),
            case(PARTS),
            case(ANSWERED, False, ALL_TOOLS),
            case(TEXT_ARGUMENTS, False, TOOLS),
            case([user("Hi"), system("Late.")]),
            case([{"role": "user", "content": [{"type": "video"}]}]),
            case(UNICODE),
        ],
    ),
    "mistral_v01": (BASE, PLAIN + ALTERNATING + [case(UNKNOWN_ROLE), case(SYSTEM)]),
    "mistral_v03": (
        BASE,
        [
            case(SINGLE),
            case(MULTI),
            case(ANSWERED, False, ALL_TOOLS),
            case(TWO_CALLS, False, TOOLS),
            case(TWO_USERS),
            case([user("Go."), assistant("", tool_calls=[call("clock", {}, "short")])]),
            case([*CALLED[:2], result({"content": 21.5}, "call00001")], False, TOOLS),
            case([user("Go."), result("x")]),
            case(SPACES),
            case(CRLF),
        ],
    ),
    "mixtral": (BASE, PLAIN + ALTERNATING),
    "olmo2": (TEXT_END, WITH_SYSTEM),
    "phi3": ({"bos_token": "<s>", "eos_token": "<|endoftext|>"}, WITH_SYSTEM),
    "phi4": (TEXT_END, WITH_SYSTEM),
    "qwen25": (CHATML, WITH_SYSTEM[:5] + [case(SYSTEM_OPEN, True)] + TOOL_USE),
    "qwen3": (
        CHATML,
        [
            case(SINGLE, True),
            case(SYSTEM_OPEN, True, enable_thinking=False),
            case(THOUGHT),
            case(REASONED, True),
            case([*THOUGHT, user("Again?")], True),
            case(
                [
                    user("A"),
                    assistant("B", reasoning_content="r"),
                    user("<tool_response>\nx\n</tool_response>"),
                    assistant("C"),
                ]
            ),
            case(ANSWERED, False, TOOLS),
            case(TWO_CALLS, True, ALL_TOOLS),
            case(TEXT_ARGUMENTS, False, TOOLS),
            case(SPACES),
            case(PARTS[1:]),
        ],
    ),
    "smollm2": (CHATML, WITH_SYSTEM),
    "smollm3": (
        CHATML,
        [
            case(SINGLE, True),
            case(MULTI, False, **DATE),
            case([system("Be brief. /no_think"), *MULTI_BARE], True),
            case([system("Only this. /system_override"), *PAIR]),
            case(PAIR, False, TOOLS),
            case(PAIR, True, xml_tools=TOOLS[1:], python_tools=["def clock(): ..."], enable_thinking=False),
            case(UNICODE),
            case(SPACES),
            case([*CALLED, assistant("Warm.")]),
        ],
    ),
    "stablelm2": (TEXT_END, WITH_SYSTEM),
    "tinyllama": (BASE, WITH_SYSTEM),
    "vicuna": (BASE, WITH_SYSTEM + ALTERNATING),
    "yi": ({"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}, WITH_SYSTEM),
    "zephyr": (BASE, WITH_SYSTEM),
}
