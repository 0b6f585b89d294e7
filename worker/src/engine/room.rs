//! Room on the stack for expressions. What plans and evaluates them are functions that call themselves for each part, and
//! a chain such as `a + b + c` is as deep as it has signs. A stack that is full ends the whole process.

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};

/// The stack that work on SQL has: measured, planning takes up to 16 KiB for each sign of a chain.
pub const STACK: usize = 64 << 20;

/// Signs of one chain: generated SQL has hundreds. A quarter of the stack, since chains may stand in one another.
const MAX_CHAIN: usize = 1000;

/// Does `work` where there is room.
pub(super) fn with_room<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(STACK / 2, STACK, work)
}

/// What is open within one pair of parentheses. The sum is at least as much as it is deep.
#[derive(Default)]
struct Chain {
    /// Signs since the beginning of an operand of the next.
    signs: usize,
    /// `AND` and `OR` since the beginning of an expression.
    conditions: usize,
    /// `UNION` and its like.
    queries: usize,
}

impl Chain {
    fn take(&mut self, token: &Token) {
        match token {
            Token::Comma | Token::SemiColon => (self.signs, self.conditions) = (0, 0),
            Token::Word(word) => match word.keyword {
                Keyword::FROM | Keyword::WHERE | Keyword::WHEN | Keyword::THEN | Keyword::ELSE => {
                    (self.signs, self.conditions) = (0, 0);
                }
                Keyword::AND | Keyword::OR => {
                    self.conditions += 1;
                    self.signs = 0;
                }
                Keyword::JOIN => self.signs += 1,
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => self.queries += 1,
                _ => {}
            },
            Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::Mod
            | Token::StringConcat
            | Token::DoubleColon
            | Token::LBracket
            | Token::Ampersand
            | Token::Pipe
            | Token::Caret
            | Token::Eq
            | Token::Neq
            | Token::Lt
            | Token::Gt
            | Token::LtEq
            | Token::GtEq => self.signs += 1,
            _ => {}
        }
    }
}

/// Whether a text can be worked on within [`STACK`]. Parentheses are limited by the parser.
///
/// Errors: which chain is too long, in words.
pub(super) fn check_chains(sql: &str) -> Result<(), String> {
    // What has no tokens is told by whoever reads it.
    let Ok(tokens) = Tokenizer::new(&GenericDialect, sql).tokenize() else {
        return Ok(());
    };
    let mut chains = vec![Chain::default()];
    for token in &tokens {
        let Some(chain) = chains.last_mut() else { continue };
        chain.take(token);
        if chain.queries + chain.conditions + chain.signs > MAX_CHAIN {
            return Err(format!(
                "more than {MAX_CHAIN} signs (such as +, || and AND) in one chain; write parts of it as columns of a subquery, \
                 or `IN (…)` in place of OR"
            ));
        }
        match token {
            Token::LParen | Token::LBracket => chains.push(Chain::default()),
            Token::RParen | Token::RBracket if chains.len() > 1 => drop(chains.pop()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_as_long_as_it_has_signs_without_a_break() {
        let chain = |signs: usize, sign: &str| format!("SELECT {}", vec!["a"; signs + 1].join(sign));
        for sign in [" + ", "||", " AND ", " OR ", " = "] {
            assert_eq!(check_chains(&chain(MAX_CHAIN, sign)), Ok(()), "{sign}");
            assert!(check_chains(&chain(MAX_CHAIN + 1, sign)).is_err(), "{sign}");
        }
        let conditions = vec!["a = b + c"; MAX_CHAIN - 2].join(" OR ");
        assert_eq!(check_chains(&format!("SELECT a FROM input WHERE {conditions}")), Ok(()));
        let unions = |count: usize| vec!["SELECT a FROM input"; count].join(" UNION ALL ");
        assert_eq!(check_chains(&unions(MAX_CHAIN + 1)), Ok(()));
        assert!(check_chains(&unions(MAX_CHAIN + 2)).is_err());
        let columns = vec!["a + 1 AS b"; 3 * MAX_CHAIN].join(", ");
        assert_eq!(check_chains(&format!("SELECT {columns} FROM input")), Ok(()));
        let cases = vec!["WHEN a = 1 THEN b + 1"; 3 * MAX_CHAIN].join(" ");
        assert_eq!(check_chains(&format!("SELECT CASE {cases} END FROM input")), Ok(()));
        assert!(check_chains(&format!("SELECT a{}", "[1]".repeat(MAX_CHAIN + 1))).is_err());
        let brackets = vec!["(a + 1)"; MAX_CHAIN].join(" + ");
        assert_eq!(check_chains(&format!("SELECT {brackets}")), Ok(()));
        assert!(check_chains(&format!("SELECT {brackets} + 1 + 1")).is_err());
    }
}
