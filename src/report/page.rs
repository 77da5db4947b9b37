//! What every page has: style sheet, colours of figures, the one script that may run, and the templates that text is escaped by.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::{Environment, Value, context};
use sha2::{Digest, Sha256};

use super::plots::theme;
use crate::error::{Error, Result};

const STYLE: &str = concat!(include_str!("page.css"), include_str!("page_samples.css"));
const SCRIPT: &str = concat!(include_str!("page.js"), include_str!("page_samples.js"));

/// Renders the first of some templates, by name and text, which may include the others. Beside the values of `page` they have `version`,
/// `style`, `dark_figures`, `script`, and `policy`: the content security policy, under which nothing is loaded and no other script runs.
///
/// # Errors
/// A template does not fit its values.
pub(super) fn render(templates: &[(&'static str, &'static str)], page: Value) -> Result<String> {
    let name = templates.first().map_or("", |(name, _)| name);
    let failed =
        |error: minijinja::Error| Error::invalid(format!("the template of {name} failed: {error:#}"));
    let safe = |text: String| Value::from_safe_string(text);
    let shared = context! {
        version => env!("CARGO_PKG_VERSION"),
        style => safe(STYLE.to_string()),
        dark_figures => safe(theme::dark_rules("svg.figure ")),
        script => safe(SCRIPT.to_string()),
        policy => safe(policy()),
    };
    let mut environment = Environment::new();
    environment.add_function("columns", columns);
    for (name, text) in templates {
        environment.add_template(name, text).map_err(failed)?;
    }
    environment
        .get_template(name)
        .and_then(|template| template.render(context! { ..page, ..shared }))
        .map_err(failed)
}

/// The script is known by the hash of its text between the tags.
fn policy() -> String {
    let digest = STANDARD.encode(Sha256::digest(format!("\n{SCRIPT}\n")));
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
}

/// Columns for so many cards, at most `most` a row: rows as even as can be, and none of one card below fuller ones where
/// that can be.
fn columns(count: usize, most: usize) -> usize {
    let (count, most) = (count.max(1), most.max(1));
    let rows = count.div_ceil(most);
    let is_lonely = |columns: usize| columns > 1 && count > columns && count % columns == 1;
    let even = count.div_ceil(rows);
    (1..=even)
        .rev()
        .chain(even + 1..=most)
        .find(|columns| *columns * 2 > even && !is_lonely(*columns))
        .unwrap_or(even)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_stand_in_even_rows_and_none_alone_in_the_last() {
        let rows = |count: usize, most: usize| {
            let columns = columns(count, most);
            (columns, count.div_ceil(columns))
        };
        assert_eq!([1, 2, 3, 5, 6].map(|count| rows(count, 6)), [(1, 1), (2, 1), (3, 1), (5, 1), (6, 1)]);
        assert_eq!([7, 8, 9, 10].map(|count| rows(count, 6)), [(4, 2), (4, 2), (5, 2), (5, 2)]);
        assert_eq!([2, 3, 4, 5, 6].map(|count| rows(count, 3)), [(2, 1), (3, 1), (2, 2), (3, 2), (3, 2)]);
        for count in 0..40 {
            for most in 0..8 {
                let columns = columns(count, most);
                assert!(columns >= 1 && columns <= most.max(1), "{count} cards, {most} at most: {columns}");
            }
        }
    }
}
