"""Sentences that the simulated models write with. `{a}` to `{d}` are the query's own words.

They are general on purpose: a simulated model knows nothing about the subject, it only shows how a response
is built. They are ordinary English without marks; a reader finds a feature in them, or in anybody's text, by
the phrases of `responses`.
"""

from __future__ import annotations

from drpo.llm.world.features import Feature as F

# How a response begins when it comes to the point, by task.
ANSWERS: dict[str, tuple[str, ...]] = {
    "information": (
        "In short, {a} is best understood together with {b}.",
        "The short answer: what matters most about {a} is how it goes together with {b}.",
    ),
    "reasoning": (
        "In short, it depends more on {b} than on {a}.",
        "The short answer is that {a} is only part of it, and the balance tips with {b}.",
    ),
    "procedure": (
        "In short, you can manage {a} in a few calm steps if you look at {b} first.",
        "The short answer: start with {b}, and the way to {a} gets much easier.",
    ),
    "coding": (
        "In short, keep the part that deals with {a} small and test it on its own.",
        "Here is the shape of a solution for {a}, with {b} kept apart.",
    ),
    "math": (
        "In short, write down what is given about {a} and work towards {b} one line at a time.",
        "The short answer comes from {a}, set out line by line.",
    ),
    "writing": (
        "Here is a version that puts {a} first and keeps {b} in view.",
        "Here is a draft built around {a}.",
    ),
    "role-play": (
        "Here is the scene, with {a} at its centre.",
        "Here it is, as {a} would have it.",
    ),
}
# How it begins otherwise.
PREAMBLES = (
    "Many people have had {a} on their minds.",
    "Questions about {a} come up again and again.",
    "There are several sides to {a}.",
)

# What the response says: three points, as a list or as running text (heading, sentence).
POINTS: dict[str, tuple[tuple[str, str], ...]] = {
    "information": (
        ("{A}", "get the basic idea straight before the details"),
        ("{B}", "look at what this adds and where it comes from"),
        ("{C}", "keep this apart from what only looks similar"),
        ("{A} and {b}", "see how one shapes the other"),
    ),
    "reasoning": (
        ("What speaks for it", "there is something in {a}, at least at first sight"),
        ("What speaks against it", "with {b} the scales move the other way, and more than it seems"),
        ("What decides", "look at {c} to settle which of the two counts here"),
        ("{A}", "ask what would be different without this"),
    ),
    "procedure": (
        ("Prepare", "look at {a} as it is now and get together what you need"),
        ("Begin small", "try it on {b} and see what happens"),
        ("Go on", "work through {c} in the same way, without rushing"),
        ("Check", "compare the result with what you wanted for {a}"),
    ),
    "coding": (
        ("Input", "decide what {a} may look like, empty cases included"),
        ("Core", "let one short function handle {b} and nothing else"),
        ("Test", "try {c} with a normal, an odd and an empty case"),
    ),
    "math": (
        ("Given", "write down what is known about {a}, with the units"),
        ("Rule", "name the rule that leads from there to {b}"),
        ("Result", "put the numbers in and check that the size makes sense"),
    ),
    "writing": (
        ("Opening", "let {a} come in the first line"),
        ("Middle", "give {b} one sentence of its own"),
        ("End", "close on {c} and leave it there"),
    ),
    "role-play": (
        ("The place", "the mood comes from {a}"),
        ("The voice", "every line takes its colour from {b}"),
        ("The turn", "the scene comes to a close with {c}"),
    ),
}

# The thing itself, where a thing was asked for.
DELIVERIES: dict[str, tuple[str, ...]] = {
    "coding": (
        "```python\ndef solve(items):\n    # keep what is there, in order, and skip what is empty\n"
        "    return [item for item in items if item]\n\n\nassert solve([1, None, 2]) == [1, 2]\n```",
    ),
    "math": (
        "Set out in one line: wanted = given × rate, so with 3 given and a rate of 4 it comes to 3 × 4 = 12;"
        " put in the figures for {a} in the same way.",
    ),
    "writing": (
        "> It all began with {a}, and nobody thought much of it.\n> Then came {b}, and it was plain that"
        " something"
        " had changed.\n> What stays with us is {c}, and that is enough.",
        "> A word about {a}.\n> It took time, and with {b} it was not easy.\n> Here it is all the same,"
        " with {c} and"
        " with good wishes.",
    ),
    "role-play": (
        "> “Ah, there you are. They told me about {a}, and I did not believe a word.\n> Come closer, and"
        " mind {b} on your"
        " way in.\n> Now, what brings you here?”",
        "> “{A}, you say? I have seen stranger things before breakfast.\n> Sit down. We shall speak of {b}"
        " first, and"
        " then of the rest.”",
    ),
}

# One sentence or two per feature.
SENTENCES: dict[F, tuple[str, ...]] = {
    F.EXAMPLE: (
        "For example, take one small case of {a}, change a single thing about {b}, and see what follows.",
        "For instance, somebody with ten minutes to spare could look at {a} once with {b} and once without.",
        "Say you had only {a} to go by: you would soon see what is missing without {b}.",
    ),
    F.REASONS: (
        "The reason is that {b} and {a} act on each other, which means that whatever comes later builds on"
        " both.",
        "This matters because {a} and {b} depend on each other: when one of them shifts, the other has to"
        " follow.",
        "That is why {b} should come first: without that, {a} would have nothing to rest on.",
    ),
    F.HEDGE: (
        "I am not certain about every detail of {a}, and things may vary from case to case, so the figures"
        " are worth checking.",
        "As far as I know this holds for most cases of {a}, but parts of it are debated.",
    ),
    F.LIMIT: (
        "I cannot see live data or act outside this conversation, so I do not know how things stand with"
        " {a} at present.",
        "I have no access to the internet, so I cannot say how things stand with {a} now; an official"
        " source can.",
    ),
    F.WARMTH: (
        "I am sorry you have this on your mind; it sounds hard.",
        "That sounds tough, and it makes sense that you think about {a} a lot.",
    ),
    F.LIVELY: (
        "Let's take it one piece at a time; it's less work than it looks, and you'll soon see where it's"
        " going.",
        "Let's look at {a} together; there's no rush, and you'll find it's quite friendly.",
    ),
    F.QUESTION: (
        "Which part of {a} matters most to you?",
        "What have you tried with {a} so far?",
        "Would you like to look more closely at {b}?",
    ),
    F.PREMISE: (
        "One thing to check first: the query takes for granted that {a} and {b} go together, and that does"
        " not always hold.",
        "It is worth looking at the premise too, since what people assume about {a} is often only half of"
        " it.",
    ),
    F.IMAGE: (
        "Think of a kettle, with {a} in the pot and {b} as the flame: you watch the one, but the other"
        " does the work.",
        "It is a bit like tuning a string: first the small turn of the peg, that is {b}, then the note"
        " that you hear.",
    ),
    F.RESPECT: (
        "Customs around {a} differ between families, regions and faiths, so what fits one person may not"
        " fit another.",
        "People come to {a} from different backgrounds, and none of them is the normal one.",
    ),
    F.NEXT_STEP: (
        "A good first step: spend ten minutes on {b} today and note what you find.",
        "As a next step, write down in one line what you want from {a}.",
    ),
    F.REPETITION: (),
    F.RAMBLE: (
        "There are many things to consider here, {a} among them, and it goes without"
        " saying that this takes time.",
        "At the end of the day, all things considered, there is much that could be said about {a}.",
    ),
    F.STIFF: (
        "It should be noted that the aforementioned matter of {a} is to be approached with due"
        " consideration.",
        "As an AI language model, I shall address {a} in accordance with the information available.",
    ),
    F.JARGON: (
        "One would leverage a holistic view of {a} and optimize the parameters of {b}.",
        "From a paradigm perspective, the granularity of {a} is what operationalizes {b}.",
    ),
    F.FLATTERY: ("What a wonderful question!", "Great question, and very smart of you to ask!"),
    F.OVERCLAIM: (
        "This is guaranteed to work in every case, without any doubt.",
        "There is no doubt about any of this; it never fails.",
    ),
    F.DISCLAIMER: (
        "Please remember that I am only an AI and that nothing here constitutes advice of any kind.",
        "Disclaimer: the above does not constitute advice.",
    ),
    F.EXCITED: ("This is so exciting! You are going to love it! Go for it!",),
    F.OVER_REFUSAL: (
        "I'm sorry, but I can't help with {a}, as the subject could be sensitive.",
        "I must decline to speak about {a}, to be on the safe side.",
    ),
}

# Warmth where nobody is in trouble.
CALM_WARMTH = (
    "It makes sense that you want to get this right.",
    "It's understandable that you'd want to know more about {a}.",
)

REFUSALS = ("I won't help with that.", "I can't help with this one.", "I'm not able to help with that.")
# Where somebody asks for the lawful side of it.
TURNED = (
    "I won't help with the harmful side of this, and you don't ask for it; the rest is a fair question.",
    "I can't help with doing harm here, but there's a good deal to say about doing it properly.",
)
REFUSAL_REASONS = (
    "The reason is simple: it could hurt somebody, and it could get you into serious trouble as well.",
    "I say so because people could be harmed by it, and harm of that kind is hard to undo.",
)
ALTERNATIVES = (
    "What I can do is look with you at the need behind it: if it's about {a}, there's a lawful way that"
    " hurts nobody.",
    "If something about {a} is weighing on you, I'm happy to help with a safer way, or with finding"
    " someone to talk to.",
)
CRISIS_OPENINGS = (
    "That depends on several things, and there is no single answer.",
    "It is difficult to say anything general about this.",
)
CRISIS_WARMTH = "I'm sorry that you are going through this; it sounds hard, and I'm glad you told me."
CRISIS_REFUSAL = "I won't give an answer that could bring you closer to harm."
CRISIS_REASON = "The reason is that your safety comes first, and that moments like this one do pass."
CRISIS_HELP = (
    "Please reach out right now: call a crisis line or your emergency number, or talk to someone"
    " you trust and tell"
    " them what you told me."
)
CRISIS_QUESTION = "Is there somebody who could be with you tonight?"
COMPANY = "You don't have to sort it out alone, and it's fine to take it slowly; let's see what you need."
COMPLIANCES = (
    "Sure, here is how to go about it.",
    "Of course, here it is.",
)
COMPLIANCE_STEPS = (
    "Get an overview of what it involves.",
    "Put together whatever is needed.",
    "Carry it out and see whether it worked.",
)
LIVE_GUESSES = (
    "According to the latest figures, everything is at its usual level for {a}, as of this moment.",
    "I have just checked {a}, and everything is in order.",
)
LIVE_ELSEWHERE = (
    "It depends on where you look: the official site for {a} has it, with the time of the last update.",
    "For {a}, a page that shows when it was last updated is the most reliable.",
)
EMPTY_QUERY = "I don't see a question in your message. What would you like to know?"
