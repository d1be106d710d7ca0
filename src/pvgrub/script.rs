//! GRUB 2's script language, as far as grub-mkconfig writes it: words, quotes, variables, blocks, `if`.
//! (GRUB 2 manual, "Shell-like scripting")

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// Blocks within blocks at most.
const MAX_DEPTH: u32 = 32;

/// GRUB's variables.
pub type Variables = BTreeMap<String, String>;

/// A piece of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A variable; not quoted, its value is cut at spaces.
    Variable {
        name: String,
        quoted: bool,
    },
}

/// A word before its variables are set in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(Word),
    /// A newline or `;`.
    End,
    Open,
    Close,
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A command and its arguments, and the block behind them (`menuentry`, `submenu`).
    Command(Vec<Word>, Option<Vec<Statement>>),
    /// Conditions with what is done if they hold, and what else.
    If(Vec<(Vec<Statement>, Vec<Statement>)>, Vec<Statement>),
}

impl Word {
    /// What it is with these variables: no word, one, or several.
    pub fn expand(&self, variables: &Variables) -> Vec<String> {
        let mut words = Vec::new();
        let mut current: Option<String> = None;
        for part in &self.0 {
            match part {
                Part::Text(text) => current.get_or_insert_default().push_str(text),
                Part::Variable { name, quoted } => {
                    let value = variables.get(name).map_or("", String::as_str);
                    if *quoted {
                        current.get_or_insert_default().push_str(value);
                        continue;
                    }
                    for (n, field) in value.split_whitespace().enumerate() {
                        if n > 0 {
                            words.extend(current.take());
                        }
                        current.get_or_insert_default().push_str(field);
                    }
                }
            }
        }
        words.extend(current);
        words
    }

    /// The word, if there is nothing to set in.
    fn plain(&self) -> Option<&str> {
        match &self.0[..] {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// Take a script apart.
///
/// # Errors
/// A quote or a block without an end, or too many blocks within blocks; with the line.
pub fn parse(text: &str) -> Result<Vec<Statement>, String> {
    let mut parser =
        Parser { lexer: Lexer { chars: text.chars().peekable(), line: 1 }, ahead: None };
    let (statements, end) = parser.block(0, &[])?;
    match end {
        Stop::Text => Ok(statements),
        Stop::Brace => Err(parser.wrong("a } without a {")),
        Stop::Keyword(_) => Err(parser.wrong("a block's end without its beginning")),
    }
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    line: u32,
}

impl Lexer<'_> {
    fn next(&mut self) -> Result<Option<Token>, String> {
        loop {
            match self.chars.peek() {
                None => return Ok(None),
                Some('\n' | ';') => {
                    self.line += u32::from(self.chars.next() == Some('\n'));
                    return Ok(Some(Token::End));
                }
                Some(c) if c.is_whitespace() => drop(self.chars.next()),
                Some('#') => while self.chars.next_if(|c| *c != '\n').is_some() {},
                Some('{') => return Ok(self.chars.next().map(|_| Token::Open)),
                Some('}') => return Ok(self.chars.next().map(|_| Token::Close)),
                Some('&' | '|' | '<' | '>') => drop(self.chars.next()),
                Some(_) => return self.word().map(|word| Some(Token::Word(word))),
            }
        }
    }

    fn word(&mut self) -> Result<Word, String> {
        let mut word = Word::default();
        while let Some(&c) = self.chars.peek() {
            match c {
                '{' | '}' | ';' | '&' | '|' | '<' | '>' => break,
                c if c.is_whitespace() => break,
                '\'' => {
                    self.chars.next();
                    self.single(&mut word)?;
                }
                '"' => {
                    self.chars.next();
                    self.double(&mut word)?;
                }
                '\\' => {
                    self.chars.next();
                    match self.chars.next() {
                        Some('\n') => self.line += 1,
                        Some(c) => word.text(c),
                        None => break,
                    }
                }
                '$' => {
                    self.chars.next();
                    self.variable(&mut word, false);
                }
                c => {
                    self.chars.next();
                    word.text(c);
                }
            }
        }
        Ok(word)
    }

    fn single(&mut self, word: &mut Word) -> Result<(), String> {
        word.touch();
        loop {
            match self.chars.next() {
                Some('\'') => return Ok(()),
                Some(c) => {
                    self.line += u32::from(c == '\n');
                    word.text(c);
                }
                None => return Err(format!("line {}: a ' without its end", self.line)),
            }
        }
    }

    fn double(&mut self, word: &mut Word) -> Result<(), String> {
        word.touch();
        loop {
            match self.chars.next() {
                Some('"') => return Ok(()),
                Some('$') => self.variable(word, true),
                Some('\\') => match self.chars.next() {
                    Some(c @ ('"' | '$' | '\\')) => word.text(c),
                    Some('\n') => self.line += 1,
                    Some(c) => {
                        word.text('\\');
                        word.text(c);
                    }
                    None => {}
                },
                Some(c) => {
                    self.line += u32::from(c == '\n');
                    word.text(c);
                }
                None => return Err(format!("line {}: a \" without its end", self.line)),
            }
        }
    }

    /// Behind a `$`.
    fn variable(&mut self, word: &mut Word, quoted: bool) {
        let mut name = String::new();
        let letter = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        if self.chars.next_if_eq(&'{').is_some() {
            while let Some(c) = self.chars.next_if(|c| *c != '}' && *c != '\n') {
                name.push(c);
            }
            self.chars.next_if_eq(&'}');
        } else if let Some(c) = self.chars.next_if(|c| "?@#*".contains(*c)) {
            name.push(c);
        } else {
            while let Some(c) = self.chars.next_if(letter) {
                name.push(c);
            }
        }
        if name.is_empty() {
            word.text('$');
        } else {
            word.0.push(Part::Variable { name, quoted });
        }
    }
}

impl Word {
    /// A quoted nothing is a word, too.
    fn touch(&mut self) {
        if self.0.is_empty() {
            self.0.push(Part::Text(String::new()));
        }
    }

    fn text(&mut self, c: char) {
        match self.0.last_mut() {
            Some(Part::Text(text)) => text.push(c),
            _ => self.0.push(Part::Text(c.to_string())),
        }
    }
}

/// What ended a block.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Text,
    Brace,
    Keyword(String),
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    ahead: Option<Token>,
}

impl Parser<'_> {
    fn next(&mut self) -> Result<Option<Token>, String> {
        match self.ahead.take() {
            Some(token) => Ok(Some(token)),
            None => self.lexer.next(),
        }
    }

    fn wrong(&self, what: &str) -> String {
        format!("line {}: {what}", self.lexer.line)
    }

    /// Statements until the text ends, a `}`, or a command that is one of `stops`.
    fn block(&mut self, depth: u32, stops: &[&str]) -> Result<(Vec<Statement>, Stop), String> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("too many blocks within blocks"));
        }
        let mut statements = Vec::new();
        loop {
            let words = match self.next()? {
                None => return Ok((statements, Stop::Text)),
                Some(Token::End) => continue,
                Some(Token::Close) => return Ok((statements, Stop::Brace)),
                Some(Token::Open) => {
                    let inner = self.braces(depth)?;
                    statements.extend(inner);
                    continue;
                }
                Some(Token::Word(word)) => word,
            };
            match words.plain() {
                Some(keyword) if stops.contains(&keyword) => {
                    return Ok((statements, Stop::Keyword(keyword.to_owned())));
                }
                Some("if") => statements.push(self.conditional(depth)?),
                // Nothing that chooses an entry is in a loop of grub-mkconfig's.
                Some("for" | "while" | "until") => {
                    self.block(depth + 1, &["do"])?;
                    self.block(depth + 1, &["done"])?;
                }
                Some("function") => drop(self.command(words, depth)?),
                _ => statements.push(self.command(words, depth)?),
            }
        }
    }

    fn braces(&mut self, depth: u32) -> Result<Vec<Statement>, String> {
        match self.block(depth + 1, &[])? {
            (statements, Stop::Brace) => Ok(statements),
            _ => Err(self.wrong("a { without its }")),
        }
    }

    fn command(&mut self, first: Word, depth: u32) -> Result<Statement, String> {
        let mut words = vec![first];
        loop {
            match self.next()? {
                Some(Token::Word(word)) => words.push(word),
                Some(Token::Open) => {
                    let block = self.braces(depth)?;
                    return Ok(Statement::Command(words, Some(block)));
                }
                Some(Token::Close) => {
                    self.ahead = Some(Token::Close);
                    return Ok(Statement::Command(words, None));
                }
                Some(Token::End) | None => return Ok(Statement::Command(words, None)),
            }
        }
    }

    /// Behind an `if`.
    fn conditional(&mut self, depth: u32) -> Result<Statement, String> {
        let mut branches = Vec::new();
        loop {
            let (condition, stop) = self.block(depth + 1, &["then"])?;
            if stop != Stop::Keyword("then".into()) {
                return Err(self.wrong("an if without its then"));
            }
            let (body, stop) = self.block(depth + 1, &["elif", "else", "fi"])?;
            branches.push((condition, body));
            match stop {
                Stop::Keyword(word) if word == "elif" => {}
                Stop::Keyword(word) if word == "fi" => {
                    return Ok(Statement::If(branches, Vec::new()));
                }
                Stop::Keyword(_) => break,
                _ => return Err(self.wrong("an if without its fi")),
            }
        }
        let (otherwise, stop) = self.block(depth + 1, &["fi"])?;
        match stop {
            Stop::Keyword(_) => Ok(Statement::If(branches, otherwise)),
            _ => Err(self.wrong("an if without its fi")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let variables = variables.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        match &parse(text).unwrap()[..] {
            [Statement::Command(words, _)] => {
                words.iter().flat_map(|word| word.expand(&variables)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_are_quoted_and_expanded_as_grub_does() {
        let variables = [("a", "1 2"), ("root", "hd0,msdos1"), ("?", "0")];
        for (text, expected) in [
            ("linux /vmlinuz ro  quiet", vec!["linux", "/vmlinuz", "ro", "quiet"]),
            ("e 'a $a b' \"x${a}y\" ''", vec!["e", "a $a b", "x1 2y", ""]),
            ("e x${a}y $none \"$none\" $?", vec!["e", "x1", "2y", "", "0"]),
            (r#"e 'it'"'"'s' a\ b "\"\x""#, vec!["e", "it's", "a b", r#""\x"#]),
            ("e ($root)/k # more", vec!["e", "(hd0,msdos1)/k"]),
            ("e a\\\nb $", vec!["e", "ab", "$"]),
        ] {
            assert_eq!(words(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn blocks_nest() {
        let text = "menuentry 'A' --class x {\n linux /a\n}\nif [ a = b ]; then one; elif c\nthen two\nelse three; fi\nfunction f {\n x }\nfor i in 1 2; do y; done\nlast";
        let statements = parse(text).unwrap();
        let [Statement::Command(_, Some(body)), Statement::If(branches, otherwise), last] =
            &statements[..]
        else {
            panic!("{statements:?}")
        };
        assert_eq!((body.len(), branches.len(), otherwise.len()), (1, 2, 1));
        assert!(matches!(last, Statement::Command(words, None) if words.len() == 1));
    }

    #[test]
    fn what_has_no_end_is_an_error_with_its_line() {
        for (text, error) in [
            ("a\nb 'c", "line 2: a '"),
            ("b \"c", "line 1: a \""),
            ("menuentry x {\n", "a { without"),
            ("}", "a } without"),
            ("if a\n", "without its then"),
            ("if a; then b", "without its fi"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(error), "{text}: {message}");
        }
        assert!(parse(&"{".repeat(10_000)).unwrap_err().contains("too many"));
        assert!(parse(&"if ".repeat(10_000)).unwrap_err().contains("too many"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(text in "(if|then|fi|else|[ ;\n{}$'\"\\\\ab=]){0,80}") {
            let _ = parse(&text);
        }
    }
}
