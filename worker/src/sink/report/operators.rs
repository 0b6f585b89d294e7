//! What the operators of templates do with decimals: compare and calculate by value, to the last digit. The template
//! language knows whole numbers and floats alone; a decimal is an object to it, and would come before or behind all of them.
//!
//! The library has no hook for operators. Its compiled form has one instruction for each, with two values on the stack, and
//! one for calling a function with two arguments from there: so the former are replaced by calls of functions here.

use std::{
    cmp::Ordering,
    fmt,
    sync::{Arc, LazyLock},
};

use gapless_common::exact::Exact;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, Value,
    machinery::{CompiledTemplate, Instruction, TemplateConfig, Vm, WhitespaceConfig, make_string_output},
    value::{DynObject, Object, ObjectRepr, ValueKind},
};

/// What faults of operators that hold for all values of their types begin with; others may be those of made-up values.
pub(super) const UNSUPPORTED: [&str; 2] = ["tried to use", "cannot compare"];

/// An exact number as it is written: that of a decimal, or a float that JSON would have no number for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal(pub String);

impl Object for Decimal {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        Number::of(&self.0).is_none_or(|number| number != Number::default())
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Self>()?;
        Number::of(&self.0)?.partial_cmp(&Number::of(&other.0)?)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number without zeros that say nothing: equal ones are written equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Number<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    infinite: bool,
}

impl<'a> Number<'a> {
    /// `None` for what is no number, `NaN` among it.
    fn of(text: &'a str) -> Option<Number<'a>> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if digits == "inf" {
            return Some(Number {
                negative,
                infinite: true,
                ..Number::default()
            });
        }
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(whole) || !plain(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Number {
            negative: negative && !is_zero,
            whole,
            fraction,
            infinite: false,
        })
    }

    fn cmp_size(&self, other: &Number<'_>) -> Ordering {
        let of = |number: &Number<'a>| (number.infinite, number.whole.len());
        of(self)
            .cmp(&(other.infinite, other.whole.len()))
            .then_with(|| self.whole.cmp(other.whole))
            .then_with(|| self.fraction.cmp(other.fraction))
    }
}

impl PartialOrd for Number<'_> {
    fn partial_cmp(&self, other: &Number<'_>) -> Option<Ordering> {
        Some(match (self.negative, other.negative) {
            (false, false) => self.cmp_size(other),
            (true, true) => other.cmp_size(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        })
    }
}

fn fault(detail: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, detail)
}

fn is_decimal(value: &Value) -> bool {
    value.downcast_object_ref::<Decimal>().is_some()
}

/// The digits of a number of any kind. Those of a float are the fewest that stand for it, so that `0.05` in a template is
/// 0.05.
fn digits(value: &Value) -> Option<String> {
    let is_number = value.kind() == ValueKind::Number || is_decimal(value);
    is_number.then(|| value.to_string())
}

/// What a value is called in an error.
fn kind(value: &Value) -> String {
    match (is_decimal(value), value.kind()) {
        (true, _) => "a decimal".to_string(),
        (_, ValueKind::String) => "text".to_string(),
        (_, ValueKind::Number) => "a number".to_string(),
        (_, ValueKind::Bool) => "a boolean".to_string(),
        (_, other) => other.to_string(),
    }
}

/// How two values stand to each other; `None` where neither is less nor equal (NULL, NaN).
///
/// Errors: values that have no order, such as a number and a text.
fn compare(one: &Value, other: &Value, orders: bool) -> Result<Option<Ordering>, Error> {
    if let (Some(one), Some(other)) = (digits(one), digits(other)) {
        return Ok(Number::of(&one)
            .zip(Number::of(&other))
            .and_then(|(one, other)| one.partial_cmp(&other)));
    }
    if one.is_none() || other.is_none() {
        return Ok((one.is_none() && other.is_none() && !orders).then_some(Ordering::Equal));
    }
    let cannot = || {
        let named = |value: &Value, beside: &Value| match is_decimal(beside) && value.as_str().is_some() {
            true => "text that is no number".to_string(),
            false => kind(value),
        };
        fault(format!(
            "cannot compare {} with {}",
            named(one, other),
            named(other, one)
        ))
    };
    for (number, text, turned) in [(one, other, false), (other, one, true)] {
        let (Some(digits), Some(written)) = (digits(number), text.as_str()) else {
            continue;
        };
        // A text that is a number is compared with decimals alone: their literals may be written so.
        let read = Number::of(written).filter(|_| is_decimal(number));
        let (Some(number), Some(text)) = (Number::of(&digits), read) else {
            return Err(cannot());
        };
        let order = number.partial_cmp(&text);
        return Ok(match turned {
            true => order.map(Ordering::reverse),
            false => order,
        });
    }
    let are = |kind: ValueKind| one.kind() == kind && other.kind() == kind;
    if are(ValueKind::Seq) {
        return compare_lists(one, other, orders);
    }
    if are(ValueKind::Map) && !orders {
        return Ok(are_equal_maps(one, other)?.then_some(Ordering::Equal));
    }
    match (one.kind() == other.kind(), orders) {
        (true, true) => Ok(Some(one.cmp(other))),
        (_, false) => Ok((one == other).then_some(Ordering::Equal)),
        (false, true) => Err(cannot()),
    }
}

/// By the first items that differ.
fn compare_lists(one: &Value, other: &Value, orders: bool) -> Result<Option<Ordering>, Error> {
    let mut others = other.try_iter()?;
    for item in one.try_iter()? {
        let Some(beside) = others.next() else {
            return Ok(Some(Ordering::Greater));
        };
        match compare(&item, &beside, orders)? {
            Some(Ordering::Equal) => {}
            differs => return Ok(differs),
        }
    }
    Ok(Some(match others.next() {
        Some(_) => Ordering::Less,
        None => Ordering::Equal,
    }))
}

fn are_equal_maps(one: &Value, other: &Value) -> Result<bool, Error> {
    if one.len() != other.len() {
        return Ok(false);
    }
    for key in one.try_iter()? {
        let beside = other.get_item(&key)?;
        if beside.is_undefined() || !is_equal(&one.get_item(&key)?, &beside)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Tests that ask for whole numbers, of decimals.
fn whole_alone(test: &'static str, value: &Value) -> Result<(), Error> {
    match is_decimal(value) {
        false => Ok(()),
        true => Err(fault(format!(
            "tried to use the test {test} on a decimal; it is of whole numbers: take `| int`"
        ))),
    }
}

fn is_equal(one: &Value, other: &Value) -> Result<bool, Error> {
    Ok(compare(one, other, false)? == Some(Ordering::Equal))
}

fn ordered(one: &Value, other: &Value, fits: fn(Ordering) -> bool) -> Result<bool, Error> {
    Ok(compare(one, other, true)?.is_some_and(fits))
}

/// Whether one of the values in a list is equal, or a text is part of another.
fn is_in(value: &Value, container: &Value) -> Result<bool, Error> {
    if matches!(container.kind(), ValueKind::Seq | ValueKind::Iterable) {
        for item in container.try_iter()? {
            // What cannot be compared with it is another value.
            if is_equal(value, &item).unwrap_or(false) {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    plain("in", value, container).map(|found| found.is_true())
}

/// What the library makes of an operator.
fn plain(operator: &str, one: &Value, other: &Value) -> Result<Value, Error> {
    static PLAIN: LazyLock<Environment<'static>> = LazyLock::new(Environment::new);
    let expression = PLAIN.compile_expression(match operator {
        "+" => "a + b",
        "-" => "a - b",
        "*" => "a * b",
        "/" => "a / b",
        "//" => "a // b",
        "%" => "a % b",
        "**" => "a ** b",
        _ => "a in b",
    })?;
    expression
        .eval(Value::from_iter([("a", one.clone()), ("b", other.clone())]))
        .map_err(|error| Error::new(error.kind(), error.detail().unwrap_or_default().to_string()))
}

/// Sums, differences and products with a decimal are exact; a quotient is a float.
fn calculate(operator: &'static str, one: &Value, other: &Value) -> Result<Value, Error> {
    let unsupported = |why: &str| {
        fault(format!(
            "tried to use {operator} operator on unsupported types {} and {}{why}",
            kind(one),
            kind(other)
        ))
    };
    let is_zero = |value: &Value| digits(value).is_some_and(|digits| Number::of(&digits) == Some(Number::default()));
    if matches!(operator, "/" | "//" | "%") && is_zero(other) {
        return Err(fault(format!("{one} {operator} {other} divides by zero")));
    }
    if !is_decimal(one) && !is_decimal(other) {
        let made = plain(operator, one, other)?;
        let is_finite =
            |value: &Value| digits(value).is_none_or(|digits| Number::of(&digits).is_some_and(|it| !it.infinite));
        return match is_finite(&made) || !is_finite(one) || !is_finite(other) {
            true => Ok(made),
            false => Err(fault(format!("{one} {operator} {other} is more than a float holds"))),
        };
    }
    let (Some(left), Some(right)) = (digits(one), digits(other)) else {
        return Err(unsupported("; text is joined with ~"));
    };
    if operator == "/" {
        let float = |digits: &str| digits.parse::<f64>().map_err(|_| unsupported(""));
        return Ok(Value::from(float(&left)? / float(&right)?));
    }
    let beyond = || fault(format!("{one} {operator} {other} has more digits than a decimal holds"));
    let exact = |digits: &str| digits.parse::<Exact>().map_err(|_| beyond());
    let (left, right) = match operator {
        "+" | "-" | "*" => (exact(&left)?, exact(&right)?),
        _ => return Err(unsupported("; decimals have + - * and /")),
    };
    let made = match operator {
        "+" => left.checked_add(right),
        "-" => right.checked_neg().and_then(|right| left.checked_add(right)),
        _ => left.checked_mul(right),
    };
    Ok(Value::from_object(Decimal(made.ok_or_else(beyond)?.to_string())))
}

/// A value as it is printed: NULL is nothing.
pub(super) fn text(value: &Value) -> String {
    match value.is_none() {
        true => String::new(),
        false => value.to_string(),
    }
}

/// Puts the operators into an environment, as functions whose names begin with a blank, which values of a template have
/// not (a value would come before a function of its name); also where they are tests (`is lt(0)`) and filters (`max`).
pub(super) fn add_to(environment: &mut Environment<'static>) {
    type Fits = fn(Ordering) -> bool;
    let orders: [(&'static str, &[&'static str], Fits); 4] = [
        (" <", &["<", "lt", "lessthan"], Ordering::is_lt),
        (" <=", &["<=", "le"], Ordering::is_le),
        (" >", &[">", "gt", "greaterthan"], Ordering::is_gt),
        (" >=", &[">=", "ge"], Ordering::is_ge),
    ];
    for (function, names, fits) in orders {
        let test = move |one: &Value, other: &Value| ordered(one, other, fits);
        environment.add_function(function, test);
        for name in names {
            environment.add_test(*name, test);
        }
    }
    let differs = |one: &Value, other: &Value| is_equal(one, other).map(|equal| !equal);
    environment.add_function(" ==", is_equal);
    environment.add_function(" !=", differs);
    for name in ["==", "eq", "equalto"] {
        environment.add_test(name, is_equal);
    }
    for name in ["!=", "ne"] {
        environment.add_test(name, differs);
    }
    environment.add_function(" in", is_in);
    environment.add_test("in", is_in);
    environment.add_test("odd", |value: Value| {
        whole_alone("odd", &value).map(|()| minijinja::tests::is_odd(value))
    });
    environment.add_test("even", |value: Value| {
        whole_alone("even", &value).map(|()| minijinja::tests::is_even(value))
    });
    environment.add_test("divisibleby", |value: Value, by: Value| {
        whole_alone("divisibleby", &value)?;
        whole_alone("divisibleby", &by)?;
        // The library would panic.
        if is_equal(&by, &Value::from(0))? {
            return Err(fault(format!("{value} is divisibleby({by}) divides by zero")));
        }
        Ok::<bool, Error>(minijinja::tests::is_divisibleby(&value, &by))
    });
    environment.add_test("number", |value: &Value| digits(value).is_some());
    for function in [" +", " -", " *", " /", " //", " %", " **"] {
        environment.add_function(function, move |one: &Value, other: &Value| {
            calculate(function.trim_start(), one, other)
        });
    }
    environment.add_function(" neg", |value: &Value| calculate("-", &Value::from(0), value));
    environment.add_function(" ~", |one: &Value, other: &Value| text(one) + &text(other));
    environment.add_filter("max", |values: &Value| outermost(values, Ordering::is_gt));
    environment.add_filter("min", |values: &Value| outermost(values, Ordering::is_lt));
    environment.add_filter("abs", |value: &Value| {
        match ordered(value, &Value::from(0), Ordering::is_lt)? {
            true => calculate("-", &Value::from(0), value),
            false => Ok(value.clone()),
        }
    });
    environment.add_filter("float", |state: &State<'_, '_>, value: &Value| {
        match is_decimal(value) {
            true => minijinja::filters::float(state, &Value::from(value.to_string())),
            false => minijinja::filters::float(state, value),
        }
    });
    environment.add_filter("int", |state: &State<'_, '_>, value: &Value| match is_decimal(value) {
        true => minijinja::filters::int(state, &Value::from(whole_part(&value.to_string()))),
        false => minijinja::filters::int(state, value),
    });
    environment.add_filter("round", |value: Value, places: Option<i32>| match is_decimal(&value) {
        true => round(&value.to_string(), places.unwrap_or(0)),
        false => minijinja::filters::round(value, places),
    });
    environment.set_formatter(print);
}

fn whole_part(digits: &str) -> &str {
    digits.split_once('.').map_or(digits, |(whole, _)| whole)
}

/// Halves go away from zero, as those of floats do.
fn round(digits: &str, places: i32) -> Result<Value, Error> {
    let beyond = || fault(format!("{digits} cannot be rounded to {places} places"));
    let exact: Exact = digits.parse().map_err(|_| beyond())?;
    let places = u8::try_from(places).map_err(|_| beyond())?;
    if exact.scale <= places {
        return Ok(Value::from_object(Decimal(digits.to_string())));
    }
    let unit = 10i128.checked_pow(u32::from(exact.scale - places)).ok_or_else(beyond)?;
    let (units, rest) = (exact.units / unit, exact.units % unit);
    let away = i128::from(rest.abs() >= unit - rest.abs()) * exact.units.signum();
    let rounded = Exact {
        units: units + away,
        scale: places,
    };
    Ok(Value::from_object(Decimal(rounded.to_string())))
}

fn outermost(values: &Value, fits: fn(Ordering) -> bool) -> Result<Value, Error> {
    let mut found: Option<Value> = None;
    // NULL is neither.
    for value in values.try_iter()?.filter(|value| !value.is_none()) {
        let better = match &found {
            Some(known) => ordered(&value, known, fits)?,
            None => true,
        };
        if better {
            found = Some(value);
        }
    }
    Ok(found.unwrap_or_default())
}

/// NULL prints as nothing; what is no number any more is an error.
fn print(out: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    if value.is_none() {
        return Ok(());
    }
    // Those of columns are no floats here.
    let is_float = value.kind() == ValueKind::Number && f64::try_from(value.clone()).is_ok_and(|it| !it.is_finite());
    match is_float {
        true => Err(fault(format!(
            "a calculation gives {value}, which is no number to print"
        ))),
        false => minijinja::escape_formatter(out, state, value),
    }
}

/// A template whose operators are those above.
pub(super) struct Compiled<'a> {
    template: CompiledTemplate<'a>,
}

impl<'a> Compiled<'a> {
    /// Errors: a template that the language does not know, or with several comparisons in one (`1 < x < 9`).
    pub fn new(name: &'a str, source: &'a str, escape: AutoEscape) -> Result<Compiled<'a>, Error> {
        let config = TemplateConfig {
            syntax_config: Default::default(),
            ws_config: WhitespaceConfig {
                keep_trailing_newline: true,
                ..WhitespaceConfig::default()
            },
            default_auto_escape: Arc::new(move |_| escape),
        };
        let mut template = CompiledTemplate::new(name, source, &config)?;
        let mut at = 0;
        while let Some(instruction) = template.instructions.get_mut(at) {
            let operator = match instruction {
                Instruction::Eq => " ==",
                Instruction::Ne => " !=",
                Instruction::Lt => " <",
                Instruction::Lte => " <=",
                Instruction::Gt => " >",
                Instruction::Gte => " >=",
                Instruction::In => " in",
                Instruction::Add => " +",
                Instruction::Sub => " -",
                Instruction::Mul => " *",
                Instruction::Div => " /",
                Instruction::IntDiv => " //",
                Instruction::Rem => " %",
                Instruction::Pow => " **",
                Instruction::StringConcat => " ~",
                Instruction::Neg => " neg",
                Instruction::CompareAndPreserve(_) => {
                    return Err(Error::new(
                        ErrorKind::SyntaxError,
                        "several comparisons in one; join them with `and`, such as `1 < x and x < 9`",
                    ));
                }
                _ => "",
            };
            if !operator.is_empty() {
                let arguments = if operator == " neg" { 1 } else { 2 };
                *instruction = Instruction::CallFunction(operator, Some(arguments));
            }
            at += 1;
        }
        Ok(Compiled { template })
    }

    pub fn render(&self, environment: &'a Environment<'a>, values: Value) -> Result<String, Error> {
        let mut text = String::with_capacity(self.template.buffer_size_hint);
        let template = &self.template;
        Vm::new(environment).eval(
            &template.instructions,
            values,
            &template.blocks,
            &mut make_string_output(&mut text),
            template.initial_auto_escape,
        )?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str) -> Result<String, Error> {
        let mut environment = Environment::new();
        add_to(&mut environment);
        let values = [
            ("d", Value::from_object(Decimal("1.50".to_string()))),
            ("n", Value::from(4)),
        ];
        Compiled::new("t", template, AutoEscape::None)?.render(&environment, Value::from_iter(values))
    }

    #[test]
    fn decimals_within_lists_and_objects_are_compared_by_value() {
        for yes in [
            "[d, n] == [1.5, 4]",
            "[d] != [1.51]",
            "[d, 1] < [1.5, 2]",
            "[d] < [1.5, 0]",
            "[[d]] > [[1.25]]",
            "{'a': d} == {'a': 1.5}",
            "{'a': d} != {'b': 1.5}",
            "[d] in [[1.5]]",
            "n is even and n is divisibleby(2)",
        ] {
            assert_eq!(
                rendered(&format!("{{{{ {yes} }}}}")).expect(yes).to_lowercase(),
                "true",
                "{yes}"
            );
        }
        assert!(rendered("{{ n is divisibleby(0) }}").is_err_and(|error| error.to_string().contains("by zero")));
        for fault in [
            "d is odd",
            "d is even",
            "d is divisibleby(2)",
            "n is divisibleby(d)",
            "[d] == ['x']",
        ] {
            let error = rendered(&format!("{{{{ {fault} }}}}")).expect_err(fault);
            let detail = error.detail().unwrap_or_default();
            assert!(
                UNSUPPORTED.iter().any(|begin| detail.starts_with(begin)),
                "{fault}: {error}"
            );
        }
    }
}
