//! Keys of the recipes that differ.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::runs::{Run, one_line};

/// Deepest nesting of tables that is looked into.
const DEEPEST: usize = 8;

/// A key that not all runs have alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecipeKey {
    /// The key with the tables around it, such as `train.lr`.
    pub key: String,
    /// Its value in each run, as TOML; `None` where it is absent.
    pub values: Vec<Option<String>>,
}

/// Keys whose values differ between runs that have a recipe; `None` where fewer than two have one. Seeds of a run of several are its
/// own, so the key `seed` is compared between runs of one training only.
pub(super) fn differences(runs: &[Run]) -> Option<Vec<RecipeKey>> {
    let recipes: Vec<Option<&toml::Table>> = runs.iter().map(Run::recipe).collect();
    if recipes.iter().flatten().count() < 2 {
        return None;
    }
    let mut keys = of_tables(&recipes);
    if runs.iter().any(|run| run.single().is_none()) {
        keys.retain(|key| key.key != "seed");
    }
    Some(keys)
}

fn of_tables(recipes: &[Option<&toml::Table>]) -> Vec<RecipeKey> {
    let flat: Vec<Option<Vec<(String, String)>>> = recipes
        .iter()
        .map(|recipe| {
            recipe.map(|table| {
                let mut found = Vec::new();
                table.iter().for_each(|(key, value)| flatten(key, value, 0, &mut found));
                found
            })
        })
        .collect();
    // In the order of the first recipe that has a key.
    let (mut seen, mut keys) = (BTreeSet::new(), Vec::new());
    for (key, _) in flat.iter().flatten().flatten() {
        if seen.insert(key.as_str()) {
            keys.push(key.as_str());
        }
    }
    let values: Vec<Option<BTreeMap<&str, &str>>> = flat
        .iter()
        .map(|found| {
            found
                .as_ref()
                .map(|found| found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect())
        })
        .collect();
    let value = |recipe: &Option<BTreeMap<&str, &str>>, key: &str| {
        recipe.as_ref()?.get(key).map(|value| value.to_string())
    };
    let differs = |key: &RecipeKey| {
        let known: Vec<&Option<String>> = key
            .values
            .iter()
            .zip(&flat)
            .filter(|(_, recipe)| recipe.is_some())
            .map(|(value, _)| value)
            .collect();
        known.windows(2).any(|pair| pair[0] != pair[1])
    };
    keys.into_iter()
        .map(|key| RecipeKey {
            values: values.iter().map(|recipe| value(recipe, key)).collect(),
            key: one_line(key),
        })
        .filter(differs)
        .collect()
}

/// The values below a key; tables of an array that have a name are known by it, so that an order is no difference.
fn flatten(key: &str, value: &toml::Value, depth: usize, found: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) if depth < DEEPEST => {
            table.iter().for_each(|(own, value)| flatten(&format!("{key}.{own}"), value, depth + 1, found));
        }
        toml::Value::Array(items) if depth < DEEPEST && items.iter().any(toml::Value::is_table) => {
            for (index, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(toml::Value::as_str);
                let own = name.map_or(index.to_string(), str::to_string);
                flatten(&format!("{key}.{own}"), item, depth + 1, found);
            }
        }
        value => found.push((key.to_string(), one_line(&value.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(recipes: &[&str]) -> Vec<RecipeKey> {
        let tables: Vec<toml::Table> = recipes.iter().map(|text| text.parse().unwrap()).collect();
        of_tables(&tables.iter().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn keys_that_differ_are_listed_with_every_value() {
        let found = keys(&[
            "seed = 1\n[train]\nlr = 0.1\narch = \"resnet18\"\n[[ood]]\nname = \"svhn\"\ndata = \"svhn:a\"\n[[ood]]\nname = \"dtd\"\n",
            "seed = 1\n[train]\nlr = 0.05\narch = \"resnet18\"\nnesterov = true\n[[ood]]\nname = \"dtd\"\n[[ood]]\nname = \"svhn\"\ndata = \"svhn:b\"\n",
        ]);
        let shown: Vec<(String, Vec<Option<&str>>)> = found
            .iter()
            .map(|key| (key.key.clone(), key.values.iter().map(Option::as_deref).collect()))
            .collect();
        let key = |name: &str| &shown.iter().find(|(key, _)| key == name).unwrap().1;
        assert_eq!(key("train.lr"), &[Some("0.1"), Some("0.05")]);
        assert_eq!(key("train.nesterov"), &[None, Some("true")]);
        assert_eq!(key("ood.svhn.data"), &[Some("\"svhn:a\""), Some("\"svhn:b\"")]);
        assert_eq!(shown.len(), 3, "{shown:?}");
    }

    #[test]
    fn equal_recipes_have_no_difference_and_a_missing_one_is_none() {
        assert_eq!(keys(&["a = 1\nb = [1, 2]", "b = [1, 2]\na = 1"]), []);
        let table: toml::Table = "a = 1".parse().unwrap();
        assert_eq!(of_tables(&[Some(&table), None, Some(&table)]), []);
    }
}
