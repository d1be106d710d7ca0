//! GRUB 2's script language: words, quotes, variables, blocks, `if`, loops, functions.
//! (GRUB 2 manual, "Shell-like scripting")
//!
//! A script is taken apart line by line, as GRUB does: a mistake takes nothing from lines before.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::rc::Rc;
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
    Newline,
    Semicolon,
    Open,
    Close,
}

/// Statements that are executed later, maybe more than once.
pub type Block = Rc<[Statement]>;

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A command and its arguments, and the block behind them (`menuentry`, `submenu`).
    Command(Vec<Word>, Option<Block>),
    /// Conditions with what is done if they hold, and what else.
    If(Vec<(Block, Block)>, Block),
    /// A variable, the words that it is in turn, and what is done with each.
    For(Vec<Word>, Block),
    /// What is done while, or `until`, a condition holds.
    While {
        /// As long as it does not hold.
        until: bool,
        /// The condition.
        condition: Block,
        /// What is done.
        body: Block,
    },
    /// A name for a block.
    Function(Vec<Word>, Block),
}

/// What words are expanded with.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// Variables by name.
    pub variables: &'a Variables,
    /// `$1`, `$2` and so on.
    pub arguments: &'a [String],
    /// `$?`: the last command did what it should.
    pub status: bool,
}

impl Values<'_> {
    /// What `$name` is: several words for `$@`, otherwise at most one.
    fn of(&self, name: &str) -> Vec<String> {
        match name {
            "?" => vec![u8::from(!self.status).to_string()],
            "#" => vec![self.arguments.len().to_string()],
            "*" => vec![self.arguments.join(" ")],
            "@" => self.arguments.to_vec(),
            _ => match name.parse::<usize>() {
                Ok(number) => {
                    let at = number.checked_sub(1).and_then(|at| self.arguments.get(at));
                    at.cloned().into_iter().collect()
                }
                Err(_) => self.variables.get(name).cloned().into_iter().collect(),
            },
        }
    }
}

impl Word {
    /// What it is with these values: no word, one, or several.
    pub fn expand(&self, values: Values<'_>) -> Vec<String> {
        let mut words = Vec::new();
        let mut current: Option<String> = None;
        for part in &self.0 {
            let (name, quoted) = match part {
                Part::Text(text) => {
                    current.get_or_insert_default().push_str(text);
                    continue;
                }
                Part::Variable { name, quoted } => (name, *quoted),
            };
            if quoted && name != "@" {
                current.get_or_insert_default();
            }
            for (n, value) in values.of(name).iter().enumerate() {
                if n > 0 {
                    words.extend(current.take());
                }
                if quoted {
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

/// A script, line by line.
pub struct Script<'a>(Parser<'a>);

impl<'a> Script<'a> {
    /// One of this text.
    pub fn new(text: &'a str) -> Self {
        let lexer = Lexer { chars: text.chars().peekable(), line: 1 };
        Self(Parser { lexer, ahead: None, ended: true })
    }
}

impl Iterator for Script<'_> {
    type Item = Result<Vec<Statement>, String>;

    /// The statements of the next line, and of those that end what it begins.
    fn next(&mut self) -> Option<Self::Item> {
        let parsed = self.0.line();
        if parsed.is_err() {
            self.0.ahead = None;
            while self.0.lexer.chars.next_if(|c| *c != '\n').is_some() {}
        }
        parsed.transpose()
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
                Some('\n') => {
                    self.line += 1;
                    return Ok(self.chars.next().map(|_| Token::Newline));
                }
                Some(';') => return Ok(self.chars.next().map(|_| Token::Semicolon)),
                Some(c) if c.is_whitespace() => drop(self.chars.next()),
                Some('#') => while self.chars.next_if(|c| *c != '\n').is_some() {},
                Some('{') => return Ok(self.chars.next().map(|_| Token::Open)),
                Some('}') => return Ok(self.chars.next().map(|_| Token::Close)),
                Some(c @ ('&' | '|' | '<' | '>')) => {
                    return Err(format!("line {}: a {c} that is not quoted", self.line));
                }
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
        } else if self.chars.peek().is_some_and(char::is_ascii_digit) {
            while let Some(c) = self.chars.next_if(char::is_ascii_digit) {
                name.push(c);
            }
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

/// Words that only end a part of something else.
const ENDS: [&str; 6] = ["then", "elif", "else", "fi", "do", "done"];

struct Parser<'a> {
    lexer: Lexer<'a>,
    ahead: Option<Token>,
    /// Before the last token was a line's end or a `;`.
    ended: bool,
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

    /// One line that has something; `None` at the text's end.
    fn line(&mut self) -> Result<Option<Vec<Statement>>, String> {
        let mut statements = Vec::new();
        loop {
            match self.next()? {
                None if statements.is_empty() => return Ok(None),
                None => return Ok(Some(statements)),
                Some(Token::Newline) if statements.is_empty() => {}
                Some(Token::Newline) => return Ok(Some(statements)),
                Some(Token::Semicolon) => {}
                Some(Token::Close) => return Err(self.wrong("a } without a {")),
                Some(Token::Open) => statements.extend(self.braces(0)?.iter().cloned()),
                Some(Token::Word(word)) => statements.push(self.statement(word, 0)?),
            }
        }
    }

    /// Statements until the text ends, a `}`, or a command that is one of `stops`.
    fn block(&mut self, depth: u32, stops: &[&str]) -> Result<(Block, Stop), String> {
        if depth > MAX_DEPTH {
            return Err(self.wrong("too many blocks within blocks"));
        }
        let mut statements = Vec::new();
        let mut ended = false;
        loop {
            let token = self.next()?;
            self.ended = std::mem::replace(
                &mut ended,
                matches!(token, Some(Token::Newline | Token::Semicolon)),
            );
            let word = match token {
                None => return Ok((statements.into(), Stop::Text)),
                Some(Token::Newline | Token::Semicolon) => continue,
                Some(Token::Close) => return Ok((statements.into(), Stop::Brace)),
                Some(Token::Open) => {
                    statements.extend(self.braces(depth)?.iter().cloned());
                    continue;
                }
                Some(Token::Word(word)) => word,
            };
            match word.plain() {
                Some(keyword) if stops.contains(&keyword) => {
                    return Ok((statements.into(), Stop::Keyword(keyword.to_owned())));
                }
                _ => statements.push(self.statement(word, depth)?),
            }
        }
    }

    /// What begins with this word.
    fn statement(&mut self, word: Word, depth: u32) -> Result<Statement, String> {
        match word.plain() {
            Some("if") => self.conditional(depth),
            Some("for") => {
                let words = self.words()?;
                Ok(Statement::For(words, self.body(depth)?))
            }
            Some(keyword @ ("while" | "until")) => {
                let until = keyword == "until";
                let (condition, stop) = self.block(depth + 1, &["do"])?;
                if stop != Stop::Keyword("do".into()) {
                    return Err(self.wrong("a loop without its do"));
                }
                let body = self.until_done(depth)?;
                Ok(Statement::While { until, condition, body })
            }
            Some("function") => {
                let name = self.words()?;
                match self.next()? {
                    Some(Token::Open) => {
                        let body = self.braces(depth)?;
                        // Unlike an entry's, a function's last command must have an end of its own.
                        if !self.ended {
                            return Err(self.wrong("a function whose } does not begin a command"));
                        }
                        Ok(Statement::Function(name, body))
                    }
                    _ => Err(self.wrong("a function without its {")),
                }
            }
            Some(end) if ENDS.contains(&end) => {
                Err(self.wrong("a block's end without its beginning"))
            }
            _ => self.command(word, depth),
        }
    }

    /// The words up to what is none.
    fn words(&mut self) -> Result<Vec<Word>, String> {
        let mut words = Vec::new();
        loop {
            match self.next()? {
                Some(Token::Word(word)) => words.push(word),
                other => {
                    self.ahead = other;
                    return Ok(words);
                }
            }
        }
    }

    fn braces(&mut self, depth: u32) -> Result<Block, String> {
        match self.block(depth + 1, &[])? {
            (statements, Stop::Brace) => Ok(statements),
            _ => Err(self.wrong("a { without its }")),
        }
    }

    /// `do … done`
    fn body(&mut self, depth: u32) -> Result<Block, String> {
        match self.block(depth + 1, &["do"])? {
            (before, Stop::Keyword(_)) if before.is_empty() => self.until_done(depth),
            _ => Err(self.wrong("a loop without its do")),
        }
    }

    fn until_done(&mut self, depth: u32) -> Result<Block, String> {
        match self.block(depth + 1, &["done"])? {
            (body, Stop::Keyword(_)) => Ok(body),
            _ => Err(self.wrong("a loop without its done")),
        }
    }

    fn command(&mut self, first: Word, depth: u32) -> Result<Statement, String> {
        let mut words = vec![first];
        words.extend(self.words()?);
        match self.next()? {
            Some(Token::Open) => {
                let block = self.braces(depth)?;
                self.ahead = self.next()?;
                if matches!(self.ahead, Some(Token::Word(_) | Token::Open)) {
                    return Err(self.wrong("a command behind a } in its line"));
                }
                Ok(Statement::Command(words, Some(block)))
            }
            other => {
                self.ahead = other;
                Ok(Statement::Command(words, None))
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
                    return Ok(Statement::If(branches, Rc::from([])));
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

    fn parse(text: &str) -> Result<Vec<Statement>, String> {
        Script::new(text).collect::<Result<Vec<_>, _>>().map(|lines| lines.concat())
    }

    fn words(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
        let variables = variables.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let arguments = ["one".to_owned(), "two 2".to_owned()];
        let values = Values { variables: &variables, arguments: &arguments, status: false };
        match &parse(text).unwrap()[..] {
            [Statement::Command(words, _)] => {
                words.iter().flat_map(|word| word.expand(values)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn words_are_quoted_and_expanded_as_grub_does() {
        let variables = [("a", "1 2"), ("root", "hd0,msdos1"), ("led", " 3")];
        for (text, expected) in [
            ("linux /vmlinuz ro  quiet", vec!["linux", "/vmlinuz", "ro", "quiet"]),
            ("e 'a $a b' \"x${a}y\" ''", vec!["e", "a $a b", "x1 2y", ""]),
            ("e x${a}y $none \"$none\" $?", vec!["e", "x1", "2y", "", "1"]),
            (r#"e 'it'"'"'s' a\ b "\"\x""#, vec!["e", "it's", "a b", r#""\x"#]),
            ("e ($root)/k # more", vec!["e", "(hd0,msdos1)/k"]),
            ("e a\\\nb $", vec!["e", "ab", "$"]),
            ("e $1 $2 \"$2\" ${3} $#", vec!["e", "one", "two", "2", "two 2", "2"]),
            ("e $@ \"x$@\" \"$*\"", vec!["e", "one", "two", "2", "xone", "two 2", "one two 2"]),
            ("e x$led", vec!["e", "x3"]),
        ] {
            assert_eq!(words(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn blocks_nest() {
        let text = "menuentry 'A' --class x {\n linux /a\n}\nif [ a = b ]; then one; elif c\nthen two\nelse three; fi\nfunction f {\n x; }\nfor i in 1 2; do y; done\nlast";
        let statements = parse(text).unwrap();
        let [
            Statement::Command(_, Some(body)),
            Statement::If(branches, otherwise),
            Statement::Function(..),
            Statement::For(words, _),
            last,
        ] = &statements[..]
        else {
            panic!("{statements:?}")
        };
        assert_eq!((body.len(), branches.len(), otherwise.len()), (1, 2, 1));
        assert_eq!(words.len(), 4);
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
            ("for a in b; do c", "without its done"),
            ("a | b", "a | that"),
            ("function f { a }", "does not begin a command"),
            ("done", "without its beginning"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(error), "{text}: {message}");
        }
        assert!(parse(&"{".repeat(10_000)).unwrap_err().contains("too many"));
        assert!(parse(&"if ".repeat(10_000)).unwrap_err().contains("too many"));
    }

    #[test]
    fn what_is_wrong_in_one_line_takes_nothing_from_the_others() {
        let lines: Vec<_> = Script::new("a; b\n}\nc | d\ne {\nf\n}\nif g\n").collect();
        let good: Vec<usize> = lines.iter().flatten().map(Vec::len).collect();
        assert_eq!((good, lines.len()), (vec![2, 1], 5), "{lines:?}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends(text in "(if|then|fi|else|[ ;\n{}$'\"\\\\ab=]){0,80}") {
            let _ = parse(&text);
        }
    }
}
