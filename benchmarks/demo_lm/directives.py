"""What a system prompt can ask for, feature by feature, in many wordings. Data only.

A directive is a beginning and an end. Those with the last end are held out from training.
"""

from __future__ import annotations

FEATURES: tuple[str, ...] = ("courtesy", "bullets", "limits", "refusal", "question", "detail")
ASPECTS: dict[str, str] = {  # feature -> the aspect that it serves
    "courtesy": "Courtesy",
    "bullets": "Structure",
    "limits": "Limitations",
    "refusal": "Safety",
    "question": "Interactivity",
    "detail": "Depth",
}
_ALWAYS = ("", "Always ", "Please ", "In each answer ", "Be sure to ", "Take care to ")
_ENDS: dict[str, tuple[str, ...]] = {
    "courtesy": (
        "be polite and friendly.",
        "thank the user in a kind and polite way.",
        "greet the user warmly and with courtesy.",
        "use a warm and courteous tone.",
        "show courtesy and thank the user first.",
        "speak in a courteous and friendly way.",
    ),
    "bullets": (
        "use bullet points.",
        "write the steps as a list.",
        "give the answer as a list of bullet points.",
        "put the main points into a bulleted list.",
        "structure the text with bullets.",
        "list the points as bullets.",
    ),
    "limits": (
        "state the limits of what you know.",
        "say openly that you have no live data.",
        "mention what you cannot know or look up.",
        "name your limits as an AI.",
        "admit that your knowledge has limits.",
        "tell the user about your limits and that you have no live data.",
    ),
    "refusal": (
        "refuse harmful requests.",
        "decline to help with crime or harm.",
        "say no to anything illegal or harmful.",
        "refuse to help when a request would harm people.",
        "decline unsafe and illegal requests.",
        "refuse whatever is illegal or would do harm.",
    ),
    "question": (
        "end with a question to the user.",
        "ask the user a question back.",
        "close with a question of your own.",
        "ask a follow-up question at the end.",
        "finish by asking the user something.",
        "ask one question back at the end.",
    ),
    "detail": (
        "explain the reason and give an example.",
        "go into detail with reasons and examples.",
        "add depth: a reason and an example.",
        "give a detailed explanation with an example.",
        "support the answer with details and an example.",
        "explain in depth with details and reasons.",
    ),
}


def _joined(start: str, end: str) -> str:
    return start + end if start else end[0].upper() + end[1:]


DIRECTIVES: dict[str, tuple[str, ...]] = {
    feature: tuple(_joined(start, end) for end in ends[:-1] for start in _ALWAYS)
    for feature, ends in _ENDS.items()
}
HELD_OUT_DIRECTIVES: dict[str, tuple[str, ...]] = {
    feature: tuple(_joined(start, ends[-1]) for start in _ALWAYS[:4]) for feature, ends in _ENDS.items()
}
INTROS: tuple[str, ...] = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are an assistant.",
    "You answer the questions of users.",
    "You are a helpful AI assistant.",
    "You are the assistant of {name}.",
    "You work for {name} and answer questions.",
    "Your job is to help the users of {name}.",
    "You are {name}, an assistant for everyday questions.",
)
# Sentences that ask for none of the features.
NEUTRAL: tuple[str, ...] = (
    "Answer the question.",
    "Write in plain English.",
    "Keep to the subject.",
    "Use simple words.",
    "The users come from {name}.",
    "Our office is in {name}.",
    "Do not speak of {name}.",
    "Think before you answer.",
)
