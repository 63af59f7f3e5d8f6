//! Reading a JSON object strictly: every problem at once, each named by its path, unknown fields refused by name.

#![expect(clippy::wildcard_enum_match_arm, reason = "the enum is JSON's own: it will not grow")]

use std::{cell::RefCell, fmt, rc::Rc};

use serde_json::{Map, Value};

use crate::net::{Policy, check_url};

/// Everything that is wrong with a body, one `path: problem` each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// At least one.
    pub problems: Vec<String>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("; "))
    }
}

/// One object of a body. Fields are taken out one by one; what is left at the end is unknown.
pub struct Fields {
    path: String,
    left: Map<String, Value>,
    taken: Vec<&'static str>,
    problems: Rc<RefCell<Vec<String>>>,
}

/// One field that is there; whoever reads it finds it not null.
pub struct Field {
    path: String,
    value: Value,
    problems: Rc<RefCell<Vec<String>>>,
}

impl Fields {
    /// The body itself.
    pub fn of_body(body: &Value) -> Result<Self, Invalid> {
        let Value::Object(left) = body else {
            return Err(Invalid { problems: vec![format!("body: must be a JSON object, not {}", kind(body))] });
        };
        Ok(Self { path: String::new(), left: left.clone(), taken: Vec::new(), problems: Rc::default() })
    }

    /// Reads a field with `read`. None when it is absent, null or wrong; what is wrong has been noted.
    pub fn optional<T>(&mut self, name: &'static str, read: impl FnOnce(Field) -> Option<T>) -> Option<T> {
        self.nullable(name, read).flatten()
    }

    /// As [`Self::optional`], for fields that must be there.
    pub fn required<T>(&mut self, name: &'static str, read: impl FnOnce(Field) -> Option<T>) -> Option<T> {
        if !self.has(name) {
            self.problem(name, "is required");
        }
        self.optional(name, read)
    }

    /// As [`Self::optional`], telling null (`Some(None)`) from absent or wrong (`None`).
    pub fn nullable<T>(&mut self, name: &'static str, read: impl FnOnce(Field) -> Option<T>) -> Option<Option<T>> {
        let field = self.take(name)?;
        if field.value.is_null() { Some(None) } else { read(field).map(Some) }
    }

    /// Takes a field out, if it is there.
    fn take(&mut self, name: &'static str) -> Option<Field> {
        self.taken.push(name);
        let value = self.left.shift_remove(name)?;
        Some(Field { path: self.path_of(name), value, problems: Rc::clone(&self.problems) })
    }

    /// Whether a field is there that was not taken yet, and is not null.
    pub fn has(&self, name: &str) -> bool {
        self.left.get(name).is_some_and(|value| !value.is_null())
    }

    /// Notes a problem with a field of this object.
    pub fn problem(&self, name: &str, problem: &str) {
        note(&self.problems, &self.path_of(name), problem);
    }

    /// Ends this object: what was not taken is unknown.
    pub fn end(self) {
        for name in self.left.keys() {
            self.problem(name, &format!("unknown field; known here: {}", self.taken.join(", ")));
        }
    }

    /// Ends the body.
    pub fn finish(self) -> Result<(), Invalid> {
        let problems = Rc::clone(&self.problems);
        self.end();
        let problems = problems.take();
        if problems.is_empty() { Ok(()) } else { Err(Invalid { problems }) }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

impl Field {
    /// An object.
    pub fn object(self) -> Option<Fields> {
        match self.value {
            Value::Object(left) => Some(Fields { path: self.path, left, taken: Vec::new(), problems: self.problems }),
            _ => self.wrong("must be an object"),
        }
    }

    /// The entries of an object of free names, in their order.
    pub fn entries(self, min: usize, max: usize) -> Option<Vec<(String, Self)>> {
        let wanted = format!("must be an object of {min} to {max} entries");
        match &self.value {
            Value::Object(map) if (min..=max).contains(&map.len()) => {}
            Value::Object(_) => return self.refuse(&wanted),
            _ => return self.wrong(&wanted),
        }
        let Self { path, value: Value::Object(map), problems } = self else { return None };
        let entry = |(name, value)| {
            let field = Self { path: format!("{path}.{name}"), value, problems: Rc::clone(&problems) };
            (name, field)
        };
        Some(map.into_iter().map(entry).collect())
    }

    /// The object as it stands, if it is one.
    pub fn map(&self) -> Option<&Map<String, Value>> {
        self.value.as_object()
    }

    /// Text of `min` to `max` characters.
    pub fn text(self, min: usize, max: usize) -> Option<String> {
        let wanted = format!("must be a string of {min} to {max} characters");
        match &self.value {
            Value::String(text) if (min..=max).contains(&text.chars().count()) => Some(text.clone()),
            Value::String(_) => self.refuse(&wanted),
            _ => self.wrong(&wanted),
        }
    }

    /// The text as it stands, if it is text.
    pub fn string(&self) -> Option<&str> {
        self.value.as_str()
    }

    /// The texts of a list, if it is a list of texts.
    pub fn strings(&self) -> Option<Vec<&str>> {
        self.value.as_array()?.iter().map(Value::as_str).collect()
    }

    /// True or false.
    pub fn boolean(self) -> Option<bool> {
        match self.value {
            Value::Bool(value) => Some(value),
            _ => self.wrong("must be true or false"),
        }
    }

    /// A whole number in a range.
    pub fn integer(self, min: u32, max: u32) -> Option<u32> {
        let wanted = format!("must be {min} to {max}, a whole number");
        self.whole(min.into(), max.into(), &wanted).and_then(|number| u32::try_from(number).ok())
    }

    /// A size in bytes.
    pub fn bytes(self, min: u64, max: u64) -> Option<u64> {
        self.whole(min, max, &format!("must be {min} to {max}, in bytes"))
    }

    /// `20.0` is whole as well: some languages write every quotient so.
    fn whole(self, min: u64, max: u64, wanted: &str) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and not negative")]
        let quotient = || self.value.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0).map(|n| n as u64);
        match self.value.as_u64().or_else(quotient).filter(|number| (min..=max).contains(number)) {
            Some(number) => Some(number),
            None if self.value.is_number() => self.refuse(wanted),
            None => self.wrong(wanted),
        }
    }

    /// A time in seconds, fractions allowed, as microseconds.
    pub fn seconds(self) -> Option<u64> {
        self.microseconds(0.0, "must be 0 to 10000000, in seconds")
    }

    /// A length in seconds, fractions allowed, as microseconds: at least a thousandth of a second.
    pub fn length(self) -> Option<u64> {
        self.microseconds(0.001, "must be 0.001 to 10000000, in seconds")
    }

    fn microseconds(self, min: f64, wanted: &str) -> Option<u64> {
        const MAX: f64 = 1e7;
        match self.value.as_f64() {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
            Some(seconds) if (min..=MAX).contains(&seconds) => Some((seconds * 1e6).round() as u64),
            Some(_) => self.refuse(wanted),
            None => self.wrong(wanted),
        }
    }

    /// A URL that [`check_url`] permits.
    pub fn url(self, policy: Policy) -> Option<String> {
        const MAX: usize = 8192;
        let problem = match &self.value {
            Value::String(text) if text.len() > MAX => format!("must be at most {MAX} bytes long"),
            Value::String(text) => match check_url(text, policy) {
                Ok(url) => return Some(url.into()),
                Err(refused) => refused.to_string(),
            },
            _ => return self.wrong("must be an https URL"),
        };
        self.refuse(&problem)
    }

    /// A map of text to text.
    pub fn pairs(self, max: usize, check: impl Fn(&str, &str) -> Option<&'static str>) -> Option<super::Headers> {
        let Value::Object(map) = &self.value else {
            return self.wrong("must be an object of strings");
        };
        if map.len() > max {
            return self.refuse(&format!("must have at most {max} entries"));
        }
        let mut pairs = super::Headers::new();
        let mut complete = true;
        for (name, value) in map {
            let problem = match value {
                Value::String(text) => check(name, text).map(str::to_owned),
                _ => Some(format!("must be a string, not {}", kind(value))),
            };
            if let Some(problem) = problem {
                note(&self.problems, &format!("{}.{name}", self.path), &problem);
                complete = false;
            } else if let Value::String(text) = value {
                pairs.insert(name.clone(), text.clone());
            }
        }
        complete.then_some(pairs)
    }

    /// Notes what is wrong with the value.
    pub fn refuse<T>(self, problem: &str) -> Option<T> {
        note(&self.problems, &self.path, problem);
        None
    }

    fn wrong<T>(self, wanted: &str) -> Option<T> {
        let problem = format!("{wanted}, not {}", kind(&self.value));
        self.refuse(&problem)
    }
}

fn note(problems: &RefCell<Vec<String>>, path: &str, problem: &str) {
    problems.borrow_mut().push(format!("{path}: {problem}"));
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
