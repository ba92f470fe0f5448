//! The public API of the library: a new or changed item is a promise, so it is made in `public.txt` as well.
//!
//! Listed are every `pub` item and every name of a `pub use` in a public module, with signatures, public
//! fields, variants, methods and implemented traits. Hidden modules and the generated types promise
//! nothing; neither does an item in a private module. `WRITE_PUBLIC_API=1` writes the list.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

use quote::ToTokens;
use syn::{
    Attribute, Fields, ImplItem, Item, ItemImpl, TraitItem, Type, Visibility, parse_quote,
    punctuated::Punctuated,
};

use super::{
    document,
    reading::{attributes, flatten, is_test, module_of},
};

const LIST: &str = "tests/layering/public.txt";

/// Every item of the sources outside of tests, with the path of its module.
type Items = Vec<(Vec<String>, Item)>;

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

/// All items in these files, with those of modules inside of them.
fn all_items(files: &[(String, String)]) -> Items {
    fn add(module: &[String], items: Vec<Item>, all: &mut Items) {
        for item in items {
            if attributes(&item).iter().any(is_test) {
                continue;
            }
            if let Item::Mod(inner) = &item
                && let Some((_, items)) = &inner.content
            {
                add(&[module, &[inner.ident.to_string()]].concat(), items.clone(), all);
            }
            all.push((module.to_vec(), item));
        }
    }
    let mut all = Vec::new();
    for (file, code) in files {
        add(&module_of(file), syn::parse_file(code).unwrap().items, &mut all);
    }
    all
}

/// A public name: where it is defined, as far as the code says, and what it is called there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    /// The modules that the path to it names.
    by: Vec<String>,
    name: String,
}

/// The public names in `module`, by their paths.
fn collect(module: &[String], all: &Items, found: &mut BTreeMap<String, Source>) {
    let path =
        |name: &str| [&["fifogate".to_owned()], module, &[name.to_owned()]].concat().join("::");
    let here = all.iter().filter(|(own, _)| own == module).map(|(_, item)| item);
    for item in here.filter(|item| !attributes(item).iter().any(is_hidden)) {
        match item {
            Item::Use(item) if is_public(&item.vis) => {
                let mut paths = Vec::new();
                flatten(&[], &item.tree, &mut paths);
                for mut names in paths {
                    let name = names.pop().unwrap();
                    let by: Vec<_> = names
                        .into_iter()
                        .filter(|name| !["crate", "self", "super"].contains(&name.as_str()))
                        .collect();
                    found.insert(path(&name), Source { by, name });
                }
            }
            Item::Mod(inner) if is_public(&inner.vis) && inner.ident != "pb" => {
                collect(&[module, &[inner.ident.to_string()]].concat(), all, found);
            }
            _ => {
                let public = named(item).filter(|(_, visibility)| is_public(visibility));
                found.extend(
                    public.map(|(name, _)| (path(&name), Source { by: module.to_vec(), name })),
                );
            }
        }
    }
}

/// The definition of a public name; of several with one name, that in a module named on the way to it.
fn definition<'a>(source: &Source, all: &'a Items) -> Option<&'a Item> {
    let of_name = all.iter().filter(|(_, item)| {
        named(item).is_some_and(|(name, visibility)| name == source.name && is_public(visibility))
    });
    let shared = |module: &[String]| {
        module.iter().rev().zip(source.by.iter().rev()).take_while(|(a, b)| a == b).count()
    };
    of_name.max_by_key(|(module, _)| shared(module)).map(|(_, item)| item)
}

/// What others may rely on of an item, without docs and bodies.
fn promise(item: &Item) -> Item {
    let mut item = item.clone();
    match &mut item {
        Item::Fn(item) => {
            keep_promises(&mut item.attrs);
            item.block = parse_quote!({});
        }
        Item::Struct(item) => {
            keep_promises(&mut item.attrs);
            keep_public(&mut item.fields);
        }
        Item::Enum(item) => {
            keep_promises(&mut item.attrs);
            for variant in &mut item.variants {
                keep_promises(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| field.attrs.clear());
            }
        }
        Item::Trait(item) => {
            keep_promises(&mut item.attrs);
            for item in &mut item.items {
                if let TraitItem::Fn(function) = item {
                    function.attrs.clear();
                    function.default = function.default.as_ref().map(|_| parse_quote!({}));
                }
            }
        }
        Item::Const(item) => keep_promises(&mut item.attrs),
        Item::Static(item) => keep_promises(&mut item.attrs),
        Item::Type(item) => keep_promises(&mut item.attrs),
        _ => (),
    }
    item
}

/// Derived traits and `non_exhaustive` are promises; docs and lints are none.
fn keep_promises(attributes: &mut Vec<Attribute>) {
    let is_promise = |own: &Attribute| {
        ["derive", "non_exhaustive", "must_use", "cfg"].iter().any(|name| own.path().is_ident(name))
    };
    attributes.retain(is_promise);
}

fn keep_public(fields: &mut Fields) {
    match fields {
        Fields::Named(named) => {
            let public = named.named.iter().filter(|field| is_public(&field.vis)).cloned();
            let mut public: Punctuated<_, _> = public.collect();
            public.iter_mut().for_each(|field: &mut syn::Field| field.attrs.clear());
            named.named = public;
        }
        Fields::Unnamed(unnamed) => {
            for field in &mut unnamed.unnamed {
                field.attrs.clear();
                if !is_public(&field.vis) {
                    field.ty = parse_quote!(_);
                }
            }
        }
        Fields::Unit => (),
    }
}

/// The part of an implementation that is public: methods of a type, or that it has a trait.
fn promise_of_impl(item: &ItemImpl) -> Option<Item> {
    let mut item = item.clone();
    keep_promises(&mut item.attrs);
    if item.trait_.is_some() {
        item.items.clear();
        return Some(item.into());
    }
    item.items.retain_mut(|item| match item {
        ImplItem::Fn(function) => {
            let hidden = function.attrs.iter().any(|own| is_hidden(own) || is_test(own));
            keep_promises(&mut function.attrs);
            function.block = parse_quote!({});
            is_public(&function.vis) && !hidden
        }
        ImplItem::Const(constant) => {
            keep_promises(&mut constant.attrs);
            is_public(&constant.vis)
        }
        _ => false,
    });
    (!item.items.is_empty()).then(|| item.into())
}

/// The traits and methods of the type `name`.
fn implementations(name: &str, all: &Items) -> Vec<Item> {
    let is_of = |item: &ItemImpl| match &*item.self_ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == name),
        _ => false,
    };
    let of_name = all.iter().filter_map(|(_, item)| match item {
        Item::Impl(item) if is_of(item) => promise_of_impl(item),
        _ => None,
    });
    of_name.collect()
}

/// The API as text: for each public path its promises, in the order of the paths.
fn listed(files: &[(String, String)]) -> String {
    let (all, mut found) = (all_items(files), BTreeMap::new());
    collect(&[], &all, &mut found);
    let mut text = String::new();
    for (path, source) in &found {
        let Some(item) = definition(source, &all) else {
            text.push_str(&format!("// {path}, from another crate or generated\n\n"));
            continue;
        };
        let mut items = vec![promise(item)];
        if matches!(item, Item::Struct(_) | Item::Enum(_)) {
            items.extend(implementations(&source.name, &all));
        }
        let code: BTreeSet<_> = items.drain(1..).map(|item| printed(vec![item])).collect();
        text.push_str(&format!("// {path}\n{}", printed(items)));
        code.iter().for_each(|code| text.push_str(code));
        text.push('\n');
    }
    text
}

fn printed(items: Vec<Item>) -> String {
    prettyplease::unparse(&syn::File { shebang: None, attrs: Vec::new(), items })
}

#[test]
fn public_items_are_those_of_the_list() {
    let found = listed(&super::code_of("src"));
    if env::var_os("WRITE_PUBLIC_API").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(LIST), &found).unwrap();
    }
    let list = document(LIST);
    let differs = list.lines().zip(found.lines()).find(|(listed, found)| listed != found);
    assert!(
        list == found,
        "the public API differs from {LIST}, first (listed, now) in {differs:#?}; if that is meant: \
         WRITE_PUBLIC_API=1 cargo test --test layering public, and say it in the changelog"
    );
}

#[test]
fn only_reachable_items_count_and_only_their_public_parts() {
    let code = "pub fn a() {} fn b() {} pub(crate) struct C; mod d { pub fn e(n: u8) -> u8 { n } } \
                pub mod f { pub use super::d::{e, e as g}; #[doc(hidden)] pub fn h() {} } \
                #[doc(hidden)] pub mod i { pub fn j() {} } pub mod pb { pub fn k() {} } \
                /// Docs.\n #[derive(Debug)] pub struct L { pub m: u8, n: u8 } \
                impl L { pub fn o(&self) { b() } fn p() {} } impl Clone for L { fn clone(&self) -> L { b() } }";
    let expected = "// fifogate::L\n#[derive(Debug)]\npub struct L {\n    pub m: u8,\n}\n\
                    impl Clone for L {}\nimpl L {\n    pub fn o(&self) {}\n}\n\n\
                    // fifogate::a\npub fn a() {}\n\n\
                    // fifogate::f::e\npub fn e(n: u8) -> u8 {}\n\n";
    assert_eq!(listed(&[("lib.rs".to_owned(), code.to_owned())]), expected);
}
