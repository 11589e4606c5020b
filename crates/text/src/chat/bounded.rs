//! Bounds for what costs little to write in a template and much to use.
//!
//! A list that holds one list twice, which holds another twice, and so on, takes as many steps to
//! make as it has levels and doubles with each when it is printed, compared or turned into text by
//! `~`. One that is nested without end, or a namespace that holds itself, overflows the stack.
//! minijinja charges for the result, which is too late. So wherever a template can make a list, a
//! dictionary or a tuple, the source gets a filter that looks at the new value as a whole:
//! [`bounded`]. Then no value is larger or deeper than it allows, whatever is done with it
//! afterwards. What `~` joins gets another filter, since that is the one place where values print
//! that cannot be replaced otherwise: [`printed`](super::printed).
//!
//! Compiling is recursive too: see [`check_shape`].

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Macro, Stmt, UnaryOpKind};
use minijinja::machinery::{Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Error, State, Value};

use super::python::{ITERATED, ITERATING, OPERATORS, PRINTING, SLICED};
use super::weigh::{bounded, refuse};

/// The filter's name.
pub(super) const BOUNDED: &str = "bounded";

/// In the place of a `%`; [`percent`](super::format::percent).
const PERCENT: &str = "|percent(";

/// Most tokens between the delimiters of a tag, each of which may be a level of an expression;
/// 4,000 levels were compiled on a stack of 2 MB. Real templates have some tens, and some hundreds
/// where they spell out a JSON object.
const MAX_TAG_TOKENS: usize = 1500;
/// Most `elif` of a template: each is a level.
const MAX_ELIFS: usize = 500;

/// Refuses what would need too much stack to be compiled.
///
/// # Errors
/// A tag of too many tokens, and too many `elif`. What is no template at all is left to the
/// compiler, which knows lines.
pub(super) fn check_shape(source: &str, syntax: &SyntaxConfig) -> Result<(), String> {
    let (mut tokens, mut elifs) = (0, 0);
    for token in tokenize(source, false, syntax.clone()) {
        let Ok((token, span)) = token else { return Ok(()) };
        match token {
            Token::BlockStart | Token::VariableStart => tokens = 0,
            Token::Ident("elif") => elifs += 1,
            _ => tokens += 1,
        }
        if tokens > MAX_TAG_TOKENS {
            return Err(format!("line {}: more than {MAX_TAG_TOKENS} tokens in one tag", span.start_line));
        }
        if elifs > MAX_ELIFS {
            return Err(format!("line {}: more than {MAX_ELIFS} times elif", span.start_line));
        }
    }
    Ok(())
}

/// The source with [`bounded`] behind everything that makes a value of others, and with filters
/// that do what Python does in the places of operators (see `python.rs`). Lines keep their numbers.
///
/// # Errors
/// A syntax error, and `loop.cycle` without a plain argument, which minijinja divides by the number
/// of.
pub(super) fn rewrite(source: &str, syntax: &SyntaxConfig) -> Result<String, Error> {
    let mut places = Places { source, inserts: Vec::new(), empty_cycle: None };
    places.stmt(&parse(source, "chat template", syntax.clone())?);
    if let Some(line) = places.empty_cycle {
        return Err(refuse(format!("line {line}: cycle needs a value to begin with")));
    }
    let mut inserts = places.inserts;
    // Stable: at one place, what ends an inner expression was found first.
    inserts.sort_by_key(|(at, ..)| *at);
    let mut out = String::with_capacity(source.len() + 12 * inserts.len());
    let mut from = 0;
    for (at, text, replaced) in inserts {
        out.push_str(&source[from..at]);
        out.push_str(text);
        from = at + replaced;
    }
    out.push_str(&source[from..]);
    Ok(out)
}

/// What is to be inserted where.
struct Places<'a> {
    source: &'a str,
    /// Where, what, and in the place of how many bytes.
    inserts: Vec<(usize, &'static str, usize)>,
    /// The line of the first call of `cycle` that may have no arguments.
    empty_cycle: Option<u32>,
}

impl Places<'_> {
    fn insert(&mut self, at: usize, text: &'static str) {
        self.inserts.push((at, text, 0));
    }

    fn wrap(&mut self, start: usize, end: usize) {
        self.insert(start, "((");
        self.insert(end, ")|bounded)");
    }

    /// A filter behind a value that is gone through, compared or cut. What is none or undefined for
    /// sure, or never, is left alone.
    fn check(&mut self, expr: &Expr, filter: &'static str) {
        let is_plain = match expr {
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) | Expr::Slice(_) | Expr::Call(_) | Expr::Filter(_) => {
                true
            }
            Expr::Const(constant) => constant.value.is_none(),
            Expr::IfExpr(_) => false,
            Expr::BinOp(e) if matches!(e.op, BinOpKind::ScAnd | BinOpKind::ScOr) => false,
            _ => return,
        };
        let end = expr.span().end_offset as usize;
        // A slice needs parentheses behind a filter.
        if is_plain && filter != SLICED {
            self.insert(end, filter);
        } else if let Some(start) = start_of(expr) {
            self.insert(start, "((");
            self.insert(end, ")");
            self.insert(end, filter);
            self.insert(end, ")");
        }
    }

    fn stmts(&mut self, stmts: &[Stmt]) {
        stmts.iter().for_each(|stmt| self.stmt(stmt));
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Template(s) => self.stmts(&s.children),
            Stmt::EmitExpr(s) => self.expr(&s.expr),
            Stmt::ForLoop(s) => {
                self.expr(&s.iter);
                self.check(&s.iter, ITERATED);
                s.filter_expr.iter().for_each(|e| self.expr(e));
                self.stmts(&s.body);
                self.stmts(&s.else_body);
            }
            Stmt::IfCond(s) => {
                self.expr(&s.expr);
                self.stmts(&s.true_body);
                self.stmts(&s.false_body);
            }
            Stmt::WithBlock(s) => {
                s.assignments.iter().for_each(|(_, e)| self.expr(e));
                self.stmts(&s.body);
            }
            Stmt::Set(s) => {
                // A tuple needs no parentheses here. A namespace must not come to hold itself.
                let is_tuple = matches!(s.expr, Expr::Tuple(_));
                match &s.expr {
                    Expr::Tuple(tuple) => self.exprs(&tuple.items),
                    other => self.expr(other),
                }
                let target_end = s.target.span().end_offset as usize;
                if (is_tuple || !matches!(s.target, Expr::Var(_)))
                    && let Some(sign) = self.source.get(target_end..).and_then(|rest| rest.find('='))
                {
                    self.wrap(target_end + sign + 1, s.span().end_offset as usize);
                }
            }
            Stmt::SetBlock(s) => {
                s.filter.iter().for_each(|e| self.filters_of_a_block(e));
                self.stmts(&s.body);
            }
            Stmt::AutoEscape(s) => {
                self.expr(&s.enabled);
                self.stmts(&s.body);
            }
            Stmt::FilterBlock(s) => {
                self.filters_of_a_block(&s.filter);
                self.stmts(&s.body);
            }
            Stmt::Macro(s) => self.macro_decl(s),
            Stmt::CallBlock(s) => {
                self.expr(&s.call.expr);
                self.args(&s.call.args);
                self.macro_decl(&s.macro_decl);
            }
            Stmt::Do(s) => {
                self.expr(&s.call.expr);
                self.args(&s.call.args);
            }
            Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => {}
        }
    }

    fn macro_decl(&mut self, decl: &Macro) {
        self.exprs(&decl.defaults);
        self.stmts(&decl.body);
    }

    /// What a block is filtered by makes text of text, except for its arguments.
    fn filters_of_a_block(&mut self, expr: &Expr) {
        if let Expr::Filter(filter) = expr {
            filter.expr.iter().for_each(|e| self.filters_of_a_block(e));
            self.args(&filter.args);
        }
    }

    fn exprs(&mut self, exprs: &[Expr]) {
        exprs.iter().for_each(|e| self.expr(e));
    }

    fn args(&mut self, args: &[CallArg]) {
        for arg in args {
            let (CallArg::Pos(e) | CallArg::Kwarg(_, e) | CallArg::PosSplat(e) | CallArg::KwargSplat(e)) = arg;
            self.expr(e);
        }
    }

    fn expr(&mut self, expr: &Expr) {
        let span = expr.span();
        let (start, end) = (span.start_offset as usize, span.end_offset as usize);
        match expr {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::Slice(e) => {
                self.expr(&e.expr);
                self.check(&e.expr, SLICED);
                [&e.start, &e.stop, &e.step].into_iter().flatten().for_each(|e| self.expr(e));
            }
            Expr::UnaryOp(e) => self.expr(&e.expr),
            Expr::BinOp(e) => {
                self.expr(&e.left);
                self.expr(&e.right);
                let compares = matches!(e.op, BinOpKind::Eq | BinOpKind::Ne);
                if compares && !is_simple(&e.left) && !is_simple(&e.right) {
                    self.operand(&e.left);
                    self.operand(&e.right);
                }
                // A text or a number can be added to its like only.
                let makes = match e.op {
                    BinOpKind::Add => !is_simple(&e.left) && !is_simple(&e.right),
                    BinOpKind::Mul => true,
                    _ => false,
                };
                if makes {
                    self.wrap(start, end);
                }
                if matches!(e.op, BinOpKind::Concat) {
                    self.joined(&e.left);
                    self.joined(&e.right);
                }
                if matches!(e.op, BinOpKind::Rem) {
                    self.filled(&e.left, &e.right);
                }
                if matches!(e.op, BinOpKind::Lt | BinOpKind::Lte | BinOpKind::Gt | BinOpKind::Gte | BinOpKind::In) {
                    self.called(&[&e.left, &e.right], end);
                }
            }
            Expr::Compare(e) => {
                self.expr(&e.expr);
                e.ops.iter().for_each(|op| self.expr(&op.expr));
                let operands: Vec<&Expr> = [&e.expr].into_iter().chain(e.ops.iter().map(|op| &op.expr)).collect();
                self.called(&operands, end);
            }
            Expr::IfExpr(e) => {
                self.expr(&e.test_expr);
                self.expr(&e.true_expr);
                e.false_expr.iter().for_each(|e| self.expr(e));
            }
            Expr::Filter(e) => {
                if let Some(value) = &e.expr {
                    self.expr(value);
                    if ITERATING.contains(&e.name) {
                        self.piped(value, ITERATED);
                    } else if PRINTING.contains(&e.name) {
                        self.piped(value, "|printed");
                    }
                }
                self.args(&e.args);
                self.insert(end, "|bounded");
            }
            Expr::Test(e) => {
                self.expr(&e.expr);
                self.args(&e.args);
            }
            Expr::GetAttr(e) => self.expr(&e.expr),
            Expr::GetItem(e) => {
                self.expr(&e.expr);
                self.expr(&e.subscript_expr);
            }
            Expr::Call(e) => {
                let is_cycle = matches!(&e.expr, Expr::GetAttr(method) if method.name == "cycle");
                if is_cycle && !e.args.iter().any(|arg| matches!(arg, CallArg::Pos(_))) {
                    self.empty_cycle.get_or_insert(u32::from(span.start_line));
                }
                self.expr(&e.expr);
                self.args(&e.args);
            }
            Expr::List(e) => self.container(&[&e.items], start, end),
            Expr::Tuple(e) => self.container(&[&e.items], start, end),
            Expr::Map(e) => self.container(&[&e.keys, &e.values], start, end),
        }
    }

    /// What is compared is paid for as if it were made anew: minijinja charges for its items, not
    /// for what they hold.
    fn operand(&mut self, expr: &Expr) {
        let span = expr.span();
        match expr {
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) | Expr::Slice(_) | Expr::Call(_) => {
                self.insert(span.end_offset as usize, "|bounded");
            }
            Expr::IfExpr(_) => self.wrap(span.start_offset as usize, span.end_offset as usize),
            Expr::BinOp(e) if matches!(e.op, BinOpKind::ScAnd | BinOpKind::ScOr) => {
                self.wrap(span.start_offset as usize, span.end_offset as usize);
            }
            _ => {}
        }
    }

    /// What `~` joins is printed as Python prints it.
    fn joined(&mut self, expr: &Expr) {
        let span = expr.span();
        let (start, end) = (span.start_offset as usize, span.end_offset as usize);
        match expr {
            Expr::Const(constant) if constant.value.as_str().is_some() || constant.value.is_integer() => {}
            Expr::BinOp(e) if matches!(e.op, BinOpKind::Concat) => {}
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) | Expr::Call(_) | Expr::Filter(_) => {
                self.insert(end, "|printed");
            }
            _ => {
                self.insert(start, "((");
                self.insert(end, ")|printed)");
            }
        }
    }

    /// A text with `%` behind it is filled with what follows, by a filter, since minijinja knows
    /// `%` for numbers alone. That of a text which is not written there stays an error.
    fn filled(&mut self, left: &Expr, right: &Expr) {
        let (from, to) = (left.span().end_offset as usize, right.span().start_offset as usize);
        let is_text = matches!(left, Expr::Const(constant) if constant.value.as_str().is_some());
        if let Some(sign) = self.source.get(from..to).filter(|_| is_text).and_then(|between| between.find('%')) {
            self.inserts.push((from + sign, PERCENT, 1));
            self.insert(right.span().end_offset as usize, ")");
        }
    }

    /// Operators between operands become the filter of [`OPERATORS`] that does them.
    fn called(&mut self, operands: &[&Expr], end: usize) {
        let Some(starts) = operands.iter().map(|e| start_of(e)).collect::<Option<Vec<usize>>>() else { return };
        let mut found = Vec::new();
        for (i, operand) in operands[..operands.len() - 1].iter().enumerate() {
            let from = operand.span().end_offset as usize;
            let sign = self.source.get(from..starts[i + 1]).and_then(sign_in);
            let Some((at, len, forms)) = sign else { return };
            let form = if operands.len() == 2 { 0 } else { 1 + usize::from(i > 0) };
            found.push((from + at, forms[form], len));
        }
        self.insert(starts[0], "((");
        self.inserts.extend(found);
        self.insert(end, "))");
    }

    /// A filter before the one that a value is piped into.
    fn piped(&mut self, value: &Expr, filter: &'static str) {
        let end = value.span().end_offset as usize;
        if let Some(at) = self.source.get(end..).and_then(|rest| rest.find('|')) {
            self.insert(end + at, filter);
        }
    }

    fn container(&mut self, items: &[&[Expr]], start: usize, end: usize) {
        items.iter().for_each(|items| self.exprs(items));
        // A list of constants is no larger than its text.
        if !items.iter().all(|items| items.iter().all(is_simple)) {
            self.wrap(start, end);
        }
    }
}

/// The operator in what stands between two operands: where it begins, its length, and its filters.
fn sign_in(between: &str) -> Option<(usize, usize, [&'static str; 3])> {
    OPERATORS.iter().find_map(|(sign, forms)| {
        // The words of `not in` may stand apart.
        let (first, last) = sign.split_once(' ').unwrap_or((sign, ""));
        let at = between.find(first)?;
        let behind = at + first.len();
        let len = if last.is_empty() { first.len() } else { behind + between[behind..].find(last)? + last.len() - at };
        Some((at, len, *forms))
    })
}

/// Where an expression begins, or behind the parentheses that it begins with; spans of the syntax
/// tree may begin with the token before, or with the last part. `None` behind a `not`, which is no
/// part of what is looked for.
fn start_of(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::GetAttr(e) => start_of(&e.expr),
        Expr::GetItem(e) => start_of(&e.expr),
        Expr::Slice(e) => start_of(&e.expr),
        Expr::Call(e) => start_of(&e.expr),
        Expr::Test(e) => start_of(&e.expr),
        Expr::Compare(e) => start_of(&e.expr),
        Expr::BinOp(e) => start_of(&e.left),
        Expr::IfExpr(e) => start_of(&e.true_expr),
        Expr::Filter(e) => e.expr.as_ref().and_then(start_of),
        Expr::UnaryOp(e) if matches!(e.op, UnaryOpKind::Not) => None,
        _ => Some(expr.span().start_offset as usize),
    }
}

/// Whether a value is no list for sure. (A text times a number is charged by length.)
fn is_simple(expr: &Expr) -> bool {
    matches!(expr, Expr::Const(constant) if constant.value.as_object().is_none())
}

/// `dict`, bounded.
pub(super) fn dict(state: &State, value: Option<Value>, update_with: Kwargs) -> Result<Value, Error> {
    bounded(state, &minijinja::functions::dict(value, update_with)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_values_is_looked_at() {
        let rows = [
            ("{{ x }} {{ x.y('a')|f }}", "{{ x }} {{ x.y('a')|f|bounded }}"),
            ("{{ x.y[1:2] }} {{ (a or b)[1:] }}", "{{ ((x.y)|sliced)[1:2] }} {{ (((a or b)|sliced))[1:] }}"),
            (
                "{{ (a) < b + 1 and c not  in d|f }}",
                "{{ (((a) )|is_less( b + 1)) and ((c )|is_not_in( d|f|bounded)) }}",
            ),
            (
                "{{ (a|join)|list|upper }}",
                "{{ (a|iterated|join|bounded)|iterated|list|bounded|printed|upper|bounded }}",
            ),
            ("{{ [x] }}", "{{ (([x])|bounded) }}"),
            ("{{ [1, 'a'] }}", "{{ [1, 'a'] }}"),
            ("{{ [1] ~ 'a' ~ 1 ~ 1.5 }}", "{{ (([1])|printed) ~ 'a' ~ 1 ~ ((1.5)|printed) }}"),
            (
                "{{ a.b ~ c|f ~ (d + 1) ~ -e }}",
                "{{ a.b|printed ~ c|f|bounded|printed ~ (((d + 1)|printed)) ~ ((-e)|printed) }}",
            ),
            ("{{ [x][0].y is in [x] }}", "{{ (([x])|bounded)[0].y is in (([x])|bounded) }}"),
            ("{{ (a + b) * c ~ d }}", "{{ (((((((a + b)|bounded)) * c)|bounded))|printed) ~ d|printed }}"),
            (
                "{{ '%s' % a ~ '%' %(b) % c }}",
                "{{ (('%s' |percent( a))|printed) ~ (('%' |percent((b)) % c)|printed) }}",
            ),
            ("{{ ('%s') % (a, b|f) }}", "{{ ('%s') |percent( (((a, b|f|bounded))|bounded)) }}"),
            ("{{ 2 * b }}", "{{ ((2 * b)|bounded) }}"),
            ("{{ 'a' + b + c }}", "{{ (('a' + b + c)|bounded) }}"),
            ("{{ x|f(y|g, z=[w])|h }}", "{{ x|f(y|g|bounded, z=(([w])|bounded))|bounded|h|bounded }}"),
            (
                "{{ a.b == c[0] and (d or e) != f(1) }}",
                "{{ a.b|bounded == c[0]|bounded and (((d or e)|bounded)) != f(1)|bounded }}",
            ),
            ("{{ a.b == 'x' or 1 < a < b }}", "{{ a.b == 'x' or ((1 )|is_chain('<',  a , '<',  b)) }}"),
            ("{{ a + b|f }}", "{{ ((a + b|f|bounded)|bounded) }}"),
            ("{% set x = a, (b, c) %}", "{% set x =(( a, (((b, c))|bounded))|bounded) %}"),
            ("{% set x = (a, b) -%}", "{% set x =(( (a, b))|bounded) -%}"),
            (
                "{% set n.a = (y) %}{% set a, n.b=c.d(1), 2 %}",
                "{% set n.a =(( (y))|bounded) %}{% set a, n.b=((c.d(1), 2)|bounded) %}",
            ),
            (
                "{% for a, b in x|f if [a] %}{{ {a: b} }}{% endfor %}",
                "{% for a, b in x|f|bounded|iterated if (([a])|bounded) %}{{ (({a: b})|bounded) }}{% endfor %}",
            ),
            (
                "ü{# [x] #}{% raw %}{{ [x] }}{% endraw %}ß{{ [x] }}",
                "ü{# [x] #}{% raw %}{{ [x] }}{% endraw %}ß{{ (([x])|bounded) }}",
            ),
            (
                "{% macro m(a=[b]) %}{{ [a] }}{% endmacro %}",
                "{% macro m(a=(([b])|bounded)) %}{{ (([a])|bounded) }}{% endmacro %}",
            ),
            (
                "{% filter f([x]) %}{{ [x] }}{% endfilter %}",
                "{% filter f((([x])|bounded)) %}{{ (([x])|bounded) }}{% endfilter %}",
            ),
        ];
        let mut failed = Vec::new();
        for (from, wanted) in rows {
            let syntax = SyntaxConfig::default();
            match rewrite(from, &syntax) {
                Ok(seen) if seen == wanted && parse(&seen, "", syntax).is_ok() => {}
                seen => failed.push(format!("{from}\n  {seen:?}\n  wanted {wanted:?}")),
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }
}
