//! Tests of the documented command line: usage, examples, the README, the guide, and the commands
//! that errors name.

#[path = "../../tests/it/guide/blocks.rs"]
mod blocks;

use std::fs;
use std::path::Path;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

/// A command as it occurs in a text, and its place.
struct Named {
    place: String,
    text: String,
}

/// Returns every command and subcommand that takes arguments.
fn leaves(command: &clap::Command) -> Vec<clap::Command> {
    let inner: Vec<_> =
        command.get_subcommands().filter(|verb| verb.get_name() != "help").collect();
    match inner.as_slice() {
        [] => vec![command.clone()],
        inner => inner.iter().flat_map(|command| leaves(command)).collect(),
    }
}

fn built() -> clap::Command {
    let mut command = super::Command::command();
    command.build();
    command
}

#[test]
fn the_arguments_are_consistent_and_every_command_has_examples() {
    let command = built();
    command.clone().debug_assert();
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        assert!(verb.get_about().is_some(), "{} has no summary", verb.get_name());
        let shown = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(shown.starts_with("Examples:\n"), "{} has no examples", verb.get_name());
    }
}

#[test]
fn usage_names_arguments_in_the_order_in_which_they_are_typed() {
    for mut command in leaves(&built()) {
        let usage = command.render_usage().to_string();
        let names: Vec<String> = command
            .get_positionals()
            .map(|argument| {
                argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string)
            })
            .map(Option::unwrap_or_default)
            .collect();
        let places: Vec<_> =
            names.iter().map(|name| usage.find(&format!("{name}>")).or(usage.find(name))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{usage}: {names:?}");
    }
}

/// Splits a command into words as a shell does, up to a comment, a pipe or a redirection.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    for letter in text.chars() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '|' | '>' | ';' | '&' | ')') => break,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Parses a command. Placeholders in capitals are replaced by valid values.
fn parse(text: &str) -> Result<(), clap::Error> {
    let fine = |word: String| match word.trim_end_matches('…') {
        "JOB" => "expire".to_owned(),
        "SHAPE" => "native".to_owned(),
        word => word.to_owned(),
    };
    match super::Command::try_parse_from(words(text).into_iter().map(fine)) {
        Err(error)
            if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Returns true if a text is only the name of a command, as in `gatelog org delete`.
fn is_name(text: &str) -> bool {
    let mut command = built();
    for word in words(text).iter().skip(1) {
        let Some(inner) = command.find_subcommand(word).cloned() else { return false };
        command = inner;
    }
    true
}

/// Returns the commands in backticks.
fn quoted<'t>(text: &'t str, place: &'t str) -> impl Iterator<Item = Named> + 't {
    let quoted = text.split('`').skip(1).step_by(2).filter(|text| text.starts_with("gatelog "));
    quoted.map(move |text| Named { place: place.to_owned(), text: text.to_owned() })
}

/// Returns the commands that stand on a line of their own with this indentation, without their
/// explanations.
fn on_lines<'t>(
    text: &'t str,
    indent: &'t str,
    place: &'t str,
) -> impl Iterator<Item = Named> + 't {
    // At the start, after a pipe, or after variables that are set for the command.
    let begins = |before: &str| {
        before.ends_with("| ") || before.split_whitespace().all(|word| word.contains('='))
    };
    text.lines().filter_map(move |line| {
        let line = line.strip_prefix(indent)?;
        let at =
            line.match_indices("gatelog ").map(|(at, _)| at).find(|at| begins(&line[..*at]))?;
        let text = line[at..].split("   ").next()?.trim().to_owned();
        Some(Named { place: place.to_owned(), text })
    })
}

#[test]
fn commands_of_readme_and_help_are_taken() {
    let readme = include_str!("../../README.md");
    let mut named: Vec<Named> = on_lines(readme, "    ", "README").collect();
    // Prose may give only the name of a command.
    let prose: String = readme
        .lines()
        .filter(|line| !line.starts_with("    "))
        .map(|line| format!("{line} "))
        .collect();
    named.extend(quoted(&prose, "README").filter(|named| !is_name(&named.text)));
    for verb in built().get_subcommands() {
        let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
        named.extend(on_lines(&help, "  ", verb.get_name()));
        named.extend(
            quoted(&help.replace('\n', " "), verb.get_name()).filter(|named| !is_name(&named.text)),
        );
    }
    assert!(named.len() > 60, "{} commands were found", named.len());
    for Named { place, text } in named {
        if let Err(error) = parse(&text) {
            panic!("{place}: `{text}`: {error}");
        }
    }
}

#[test]
fn commands_in_blocks_of_readme_and_guide_are_taken() {
    let mut found = 0;
    for block in blocks::blocks() {
        let lines: Vec<String> = match block.kind() {
            "console" => block.commands().into_iter().map(|(command, _)| command).collect(),
            "sh" => block.text.replace("\\\n", " ").lines().map(str::to_owned).collect(),
            _ => continue,
        };
        for words in lines.iter().flat_map(|line| invocations(line)) {
            found += 1;
            match super::Command::try_parse_from(&words) {
                Err(error) if error.use_stderr() => panic!("{}: {words:?}: {error}", block.at()),
                _ => {}
            }
        }
    }
    assert!(found > 60, "{found} commands were found");
}

/// Returns the words of each call of gatelog in a line of a shell.
fn invocations(line: &str) -> Vec<Vec<String>> {
    let is_start =
        |before: &str| before.split_whitespace().all(|word| word.contains('=') || word == "$");
    let line = line.replace("\\\n", " ");
    let parts = line.split(['|', ';', '>', '&', '(']);
    parts
        .filter_map(|part| {
            let at = part.find("gatelog ").filter(|at| is_start(&part[..*at]))?;
            shlex::split(part[at..].split('#').next()?)
        })
        .collect()
}

/// Returns the string literals of a file that name a command, without comments and tests.
fn literals(source: &str) -> String {
    let code = source.split("\n#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    // A line that ends with a backslash continues with the first letter of the next line.
    let joined =
        |line: &str| line.strip_suffix('\\').map_or_else(|| format!("{line}\n"), str::to_owned);
    lines.map(|line| joined(line.trim_start())).collect()
}

/// Returns the commands in backticks within a string literal.
fn in_literals(code: &str) -> Vec<String> {
    let begins = code.match_indices("`gatelog ").map(|(at, _)| &code[at + 1..]);
    let named = begins.filter_map(|rest| rest.split('`').next());
    named.filter(|text| !text.contains(['"', '\n'])).map(filled).collect()
}

/// Returns the literal with a word in place of each placeholder.
fn filled(text: &str) -> String {
    let mut filled = String::new();
    for (place, part) in text.split('{').enumerate() {
        match (place, part.split_once('}')) {
            (0, _) | (_, None) => filled.push_str(part),
            (_, Some((_, rest))) => {
                filled.push_str("some");
                filled.push_str(rest);
            }
        }
    }
    filled
}

fn sources(folder: &Path, take: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, take);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("tests.rs")
        {
            take(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn commands_that_errors_name_are_taken_as_they_are_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = 0;
    sources(&root, &mut |path, source| {
        let place = path.strip_prefix(&root).unwrap().display().to_string();
        // The help texts are read above. The API document has no remedies.
        if place.starts_with("http/openapi") {
            return;
        }
        let help = place.starts_with("cli/");
        for text in in_literals(&literals(source)) {
            if help && is_name(&text) {
                continue;
            }
            found += 1;
            if let Err(error) = parse(&text) {
                panic!("{place}: `{text}`: {error}");
            }
        }
    });
    assert!(found >= 12, "{found} commands were found");
}

#[test]
fn the_program_uses_no_hidden_module_of_the_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli");
    sources(&root, &mut |path, source| {
        for module in ["limits", "store", "table", "wal"] {
            let used = source.contains(&format!("gatelog::{module}::"));
            assert!(!used, "{} uses gatelog::{module}", path.display());
        }
    });
}
