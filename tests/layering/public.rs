//! The public items of the library: a new one is a promise, so it is made in `public.txt` as well.
//!
//! Every `pub` item and every name of a `pub use` in a public module counts. Hidden modules and the
//! generated types promise nothing; neither does what stands in a private module.

use std::collections::BTreeSet;

use quote::ToTokens;
use syn::{Attribute, Item, Visibility};

use super::{
    document,
    reading::{attributes, flatten},
    sources,
};

const LIST: &str = "tests/layering/public.txt";

/// Name and visibility of an item that can be public; a module is none.
fn named(item: &Item) -> Option<(String, &Visibility)> {
    let (name, visibility) = match item {
        Item::Const(item) => (&item.ident, &item.vis),
        Item::Enum(item) => (&item.ident, &item.vis),
        Item::Fn(item) => (&item.sig.ident, &item.vis),
        Item::Static(item) => (&item.ident, &item.vis),
        Item::Struct(item) => (&item.ident, &item.vis),
        Item::Trait(item) => (&item.ident, &item.vis),
        Item::Type(item) => (&item.ident, &item.vis),
        _ => return None,
    };
    Some((name.to_string(), visibility))
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_hidden(attribute: &Attribute) -> bool {
    attribute.to_token_stream().to_string().contains("doc (hidden)")
}

/// The public items below `module`, by their paths.
fn collect(module: &str, items: &[Item], all: &[(String, String)], found: &mut BTreeSet<String>) {
    let path = |name: &str| format!("{module}::{name}");
    for item in items.iter().filter(|item| !attributes(item).iter().any(is_hidden)) {
        match item {
            Item::Use(item) if is_public(&item.vis) => {
                let mut paths = Vec::new();
                flatten(&[], &item.tree, &mut paths);
                found.extend(paths.iter().filter_map(|names| names.last()).map(|own| path(own)));
            }
            Item::Mod(inner) if is_public(&inner.vis) && inner.ident != "pb" => {
                let inside = path(&inner.ident.to_string());
                match &inner.content {
                    Some((_, items)) => collect(&inside, items, all, found),
                    None => collect(&inside, &items_of(&inside, all), all, found),
                }
            }
            _ => found.extend(
                named(item).filter(|(_, visibility)| is_public(visibility)).map(|own| path(&own.0)),
            ),
        }
    }
}

/// The items in the file of a module.
fn items_of(module: &str, all: &[(String, String)]) -> Vec<Item> {
    let file = module.split("::").skip(1).collect::<Vec<_>>().join("/");
    let files = [format!("{file}.rs"), format!("{file}/mod.rs")];
    let (_, code) = all.iter().find(|(file, _)| files.contains(file)).expect(module);
    syn::parse_file(code).unwrap().items
}

#[test]
fn public_items_are_those_of_the_list() {
    let (all, mut found) = (sources("src"), BTreeSet::new());
    collect("fifogate", &items_of("fifogate::lib", &all), &all, &mut found);
    let list = document(LIST);
    let listed: BTreeSet<_> = list.lines().map(str::to_owned).collect();
    let new: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(new.is_empty() && gone.is_empty(), "{LIST} lacks {new:#?}, and has {gone:#?}");
}

#[test]
fn only_reachable_items_count() {
    let code = "pub fn a() {} fn b() {} pub(crate) struct C; mod d { pub fn e() {} } \
                pub mod f { pub use super::d::{e, e as g}; #[doc(hidden)] pub fn h() {} } \
                #[doc(hidden)] pub mod i { pub fn j() {} } pub mod pb { pub fn k() {} }";
    let mut found = BTreeSet::new();
    collect("x", &syn::parse_file(code).unwrap().items, &[], &mut found);
    assert_eq!(found, BTreeSet::from(["x::a", "x::f::e"].map(str::to_owned)));
}
