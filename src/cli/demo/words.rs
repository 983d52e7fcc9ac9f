//! Questions and answers of the sample records: word lists and sentence patterns, all written for
//! gatelog.
//!
//! Each `{name}` of a pattern is filled from the list of that name. Within one conversation a list
//! always gives the same word, so that the question, the answer and the repeated history agree.

/// Conversations of one kind of application.
#[derive(Debug)]
pub(super) struct Theme {
    pub(super) system: &'static str,
    /// First questions of conversations.
    pub(super) openers: &'static [&'static str],
    /// Follow-up questions.
    pub(super) follow_ups: &'static [&'static str],
    /// Sentences of answers, in any choice and order.
    pub(super) answers: &'static [&'static str],
    /// Word lists, by name.
    pub(super) lists: &'static [(&'static str, &'static [&'static str])],
}

pub(super) const BANK: Theme = Theme {
    system: "You help customers of Harbor Bank. Be brief and exact. Never ask for a PIN. Hand over to a person for \
             fraud.",
    openers: &[
        "How do I {task} for my {account}?",
        "My {account} shows a charge from {merchant} that I do not know. What now?",
        "What does it cost to {task} from abroad?",
        "Why was my card refused at {merchant} on {day}?",
        "Can I {task} on a weekend?",
        "Which documents do you need so that I can {task}?",
    ],
    follow_ups: &[
        "And how long does that take?",
        "Is there a fee if I do it on {day}?",
        "I am on the phone app and do not see that menu.",
        "Can my partner do the same for their {account}?",
        "What if I have already tried that twice?",
        "Thanks. Please sum up the steps in one list.",
    ],
    answers: &[
        "Open the app, choose your {account}, then Services; the entry to {task} is the third one.",
        "Requests made before 16:00 are done on the same working day, later ones on the next.",
        "There is no fee within the country; elsewhere it is 1.50 a transaction, shown before you confirm.",
        "The charge from {merchant} is still pending, so it may carry another name once it is booked on {day}.",
        "If you did not make it, lock the card in the app now; a colleague from the fraud desk will call you back.",
        "You will need your identity card and a statement that is not older than three months.",
        "I cannot see your balance from here, and for your safety I will not ask for your PIN.",
        "A joint {account} needs the consent of both holders; each of you confirms in your own app.",
    ],
    lists: &[
        (
            "task",
            &[
                "raise the transfer limit",
                "order a second card",
                "stop a standing order",
                "change my address",
            ],
        ),
        ("account", &["savings account", "current account", "business account", "youth account"]),
        (
            "merchant",
            &[
                "Lindqvist Books",
                "Corner Garden",
                "Pico Electronics",
                "the ferry terminal",
                "Halle 9 Cinema",
            ],
        ),
        ("day", &["Monday", "Tuesday", "Thursday", "Friday", "Sunday"]),
    ],
};

pub(super) const CLINIC: Theme = Theme {
    system: "You work at the front desk of Maple Clinic. Book, move and explain appointments. Give no medical advice.",
    openers: &[
        "I would like to move my appointment with {doctor} to {day}.",
        "What should I bring to the {visit}?",
        "Is it possible to get a {visit} this week?",
        "Where do I park when I come for a {visit}?",
        "My child has a {visit} on {day}; may both parents come along?",
    ],
    follow_ups: &[
        "Is {doctor} also there in the afternoon?",
        "Do I have to fast before the {visit}?",
        "Please send me a reminder the evening before.",
        "What happens if I am ten minutes late?",
    ],
    answers: &[
        "{doctor} has openings on {day} at 9:20 and 14:40; which one may I note for you?",
        "Please bring your insurance card, your list of medicines and, if you have one, the letter from your doctor.",
        "A {visit} takes about thirty minutes; plan ten more for the desk.",
        "Parking is behind the building, entrance from the mill lane; the first hour is free.",
        "That is a question for the nurse; I have asked her to call you today before five.",
        "If you are late, call us, and we will see whether the next patient can go first.",
    ],
    lists: &[
        ("doctor", &["Dr. Okafor", "Dr. Lindgren", "Dr. Benali", "Dr. Sato"]),
        (
            "visit",
            &["blood test", "first consultation", "vaccination", "follow-up visit", "hearing test"],
        ),
        ("day", &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]),
    ],
};

pub(super) const PLAYERS: Theme = Theme {
    system: "You are the help desk of the sailing game Tidepool. Friendly, short, no spoilers beyond what is asked.",
    openers: &[
        "How do I get past {place} without losing the {boat}?",
        "I lost my {item} after the last update. Can I have it back?",
        "What is the fastest way to earn shells near {place}?",
        "Does the {boat} carry more than the {item} plus two crew?",
        "The game stutters at {place} on my laptop, what can I turn off?",
        "Where do I find the {item}?",
    ],
    follow_ups: &[
        "That did not work, the tide was too low.",
        "Can I do it with a friend on another platform?",
        "And in the hard mode?",
        "Which of the two is better for a beginner?",
    ],
    answers: &[
        "Wait in the lee of {place} until the second bell, then cross with half sail.",
        "The {item} is bound to your captain, so a restart at the harbour master brings it back.",
        "Shells grow back every six in-game hours; two rounds at {place} pay for the next sail of the {boat}.",
        "Set water reflections to low and shadows to static; at {place} that alone gives about twenty frames.",
        "Crews can mix platforms as long as all are on the same version, which the title screen shows.",
        "In the hard mode the current turns against you, so take the outer route and keep the {item} in reserve.",
        "For a first voyage the {boat} forgives more than it costs.",
    ],
    lists: &[
        (
            "place",
            &["Gull Rock", "the Narrows", "Old Lantern Bay", "the Salt Maze", "Whistling Point"],
        ),
        ("boat", &["skiff", "cutter", "twin-mast", "reed raft"]),
        ("item", &["brass sextant", "storm flare", "eel net", "captain's coat", "moon chart"]),
    ],
};

pub(super) const STUDIO: Theme = Theme {
    system: "You are a coding assistant for the Tidepool studio. Rust on the server, Lua in the game. Answer with \
             code first.",
    openers: &[
        "Write a function that {job} in {language}.",
        "This {language} test fails only on the build machine; it {job}. Where would you look?",
        "Review this: a {language} module that {job} and holds a lock while it writes to the {store}.",
        "How would you {change} the {store} without a pause for players?",
    ],
    follow_ups: &[
        "Make it work when the {store} is empty.",
        "Add a test for the case with two writers.",
        "Can this be done without the extra allocation?",
        "Explain the second branch in one sentence.",
        "Now as a patch against the old version, please.",
    ],
    answers: &[
        concat!(
            "```\nfn next(open: &mut Vec<Slot>, now: u64) -> Option<Slot> {\n",
            "    let at = open.iter().position(|slot| slot.due <= now)?;\n    Some(open.swap_remove(at))\n}\n```",
        ),
        "The lock is taken before the {store} is read, so two workers wait for each other; take it after, and check \
         again.",
        "On the build machine the clock jumps, and the test compares two readings of it; pass the time in instead.",
        "Write to a second {store}, compare both for a day, then let readers move over one by one.",
        concat!(
            "```\nlocal function drain(queue, limit)\n  local taken = {}\n",
            "  while #taken < limit and queue:peek() do taken[#taken + 1] = queue:pop() end\n  return taken\nend\n```",
        ),
        "Two things before merging: an upper bound for the retry, and the error should name the {store}.",
        "That {language} code copies each item once; borrow it in the loop and clone only what is kept.",
    ],
    lists: &[
        (
            "job",
            &[
                "merges two sorted streams",
                "expires idle sessions",
                "packs tiles into sheets",
                "replays the event log",
            ],
        ),
        ("language", &["Rust", "Lua", "Python"]),
        ("store", &["session cache", "score table", "event log", "asset index"]),
        ("change", &["split", "re-key", "compact", "move"]),
    ],
};

pub(super) const EDITING: Theme = Theme {
    system: "You edit for Quill Press. Keep the author's voice, cut what repeats, mark what you are not sure of.",
    openers: &[
        "Shorten the blurb of \"{title}\" to sixty words. Draft: {draft}",
        "Give me five subtitles for \"{title}\", a {genre}.",
        "Translate the first paragraph into {tongue}: {draft}",
        "Is the tense consistent here? {draft}",
        "Write a catalogue entry for \"{title}\" ({genre}), neutral in tone.",
    ],
    follow_ups: &[
        "Less solemn, please.",
        "Keep the sentence about the ferry.",
        "And now for readers of twelve.",
        "Give me that in {tongue} too.",
    ],
    answers: &[
        "A harbour town, a missing ledger, and a clerk who can no longer pretend not to read: \"{title}\" is a \
         {genre} about what we owe.",
        "The tense slips once, in the third sentence; \"had been\" would keep it in line. Not sure: is the year meant \
         to be vague?",
        "I cut two adjectives and the second mention of the rain, which the last line repeats.",
        "Five options: The Quiet Ledger; What the Tide Returned; A Clerk's Account; Low Water; Entries in Pencil.",
        "In {tongue} the pun on \"balance\" is lost, so I moved it to the verb; please have a native reader check.",
        "For readers of twelve I kept the plot and replaced the court scene by a letter.",
    ],
    lists: &[
        (
            "title",
            &[
                "The Low Ledger",
                "A Room for Weather",
                "Seven Winters of Ash Lane",
                "Notes on a Bridge",
            ],
        ),
        ("genre", &["novel", "memoir", "local history", "collection of essays"]),
        ("tongue", &["German", "French", "Portuguese", "Polish", "Japanese"]),
        (
            "draft",
            &[
                "It had rained on the ledger for a week before anyone thought to close the window, and by then the \
                 names had begun to run into one another like people leaving a church.",
                "My grandmother counted bridges the way others count sheep. She never slept, but she knew every span \
                 between here and the sea, its year and its builder.",
                "In Ash Lane nobody owned a clock. The baker's shutters were the morning, the ferry was noon, and \
                 evening was whenever old Pellow lost at cards.",
            ],
        ),
    ],
};

pub(super) const GRID: Theme = Theme {
    system: "You support the control room of Fieldstone Energy. Cite the runbook page. If in doubt, tell them to call \
             the shift lead.",
    openers: &[
        "Feeder {feeder} tripped at {site}. What is the first check?",
        "Summarise last night's alarms for {site} in three bullets.",
        "Is it safe to move load from {feeder} to its neighbour at this temperature?",
        "Draft the hand-over note for {site}: {event}.",
    ],
    follow_ups: &[
        "The relay shows code {code}.",
        "Which page of the runbook is that?",
        "Add that {feeder} is back since 05:40.",
        "Who has to sign this?",
    ],
    answers: &[
        "First check the relay at {site} for a code, then the breaker position of {feeder} (runbook, page 14).",
        "Code {code} points to the transformer's oil temperature; wait twenty minutes before a second attempt (page \
         31).",
        "Load may move while the neighbour stays under 80 percent and the line under 65 degrees (page 22).",
        "- {event}\n- {feeder} switched over, no customers lost\n- {site} back to normal at 05:40",
        "The shift lead signs, and the note goes to the day desk before 07:00.",
        "I am not sure about this combination; please call the shift lead before you switch.",
    ],
    lists: &[
        ("feeder", &["F-12", "F-07", "F-31", "N-04", "S-18"]),
        ("site", &["Brook Hill", "Tannery Road", "East Weir", "Station Nine"]),
        ("code", &["E41", "E17", "W08", "E63"]),
        (
            "event",
            &[
                "two short voltage dips",
                "a planned switch-over",
                "a lost telemetry link",
                "a blown surge arrester",
            ],
        ),
    ],
};

/// Passages that the embedding application indexes.
pub(super) const PASSAGES: &[&str] = &[
    "Runbook, page 14. After a trip read the relay code before anything is reset; note time, load and weather.",
    "Runbook, page 22. Load may be moved between neighbouring feeders while each stays below 80 percent.",
    "Runbook, page 31. Codes beginning with E4 concern oil temperature. Do not close the breaker twice within 20 \
     minutes.",
    "Runbook, page 40. Telemetry is lost when both links are down for 90 seconds; the site then counts as unattended.",
    "Runbook, page 52. The hand-over note names open work, switched feeders and everyone who is on site.",
    "Style sheet. Numbers up to twelve are words; dates are day, month, year; no serial comma in quotations.",
    "Style sheet. Ship names are in italics without the article; streets keep the spelling of their town.",
];

/// First names of the end users; a letter follows.
pub(super) const NAMES: &[&str] = &[
    "amara", "bo", "chiara", "dario", "elif", "femke", "goran", "hana", "ines", "jonas", "kofi",
    "lucia", "mateo", "noor", "olga", "pilar", "quentin", "rosa", "sven", "tomas", "uma", "viktor",
    "wanda", "yusuf", "zofia",
];
