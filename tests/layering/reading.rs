//! Reads a file of `src/` and finds what it should not have.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Block, ImplItemFn, Item, ItemFn, Signature, TraitItemFn, UseTree,
    spanned::Spanned,
    visit::{self, Visit},
};

use super::layers::*;

/// Longest function, in lines from `fn` to its last brace.
pub(crate) const LONGEST_FUNCTION: usize = 60;
/// Longest file, in lines before its tests.
pub(crate) const LONGEST_FILE: usize = 500;

/// All that is wrong with a file of `src/`, called `file` there.
pub(crate) fn faults(file: &str, code: &str) -> Vec<String> {
    let parsed = syn::parse_file(code).unwrap_or_else(|error| panic!("{file}: {error}"));
    let in_layer = |layer: &&Layer| {
        let rest = file.strip_prefix(layer.name);
        rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    };
    let Some(layer) = LAYERS.iter().filter(in_layer).max_by_key(|layer| layer.name.len()) else {
        return vec![format!("{file} is in no layer of tests/layering.rs")];
    };
    let module = module_of(file);
    let mut reader = Reader { layer, module, dependencies: dependencies(), faults: Vec::new() };
    reader.visit_file(&parsed);
    let mut faults = reader.faults;
    let lines = lines_before_tests(&parsed).unwrap_or_else(|| code.lines().count());
    if lines > LONGEST_FILE {
        faults.push(format!("has {lines} lines before its tests"));
    }
    faults.iter().map(|fault| format!("{file} {fault}")).collect()
}

/// The path of the module that a file is, without the crate.
pub(crate) fn module_of(file: &str) -> Vec<String> {
    let file = file.trim_end_matches(".rs");
    let file = file.strip_suffix("/mod").unwrap_or(file);
    let top = ["lib", "main"].contains(&file);
    if top { Vec::new() } else { file.split('/').map(str::to_owned).collect() }
}

/// The names by which code calls what `Cargo.toml` depends on.
pub(crate) fn dependencies() -> BTreeSet<String> {
    let manifest = include_str!("../../Cargo.toml");
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| Some(line.split_once([' ', '='])?.0.replace('-', "_")));
    names.filter(|name| !name.starts_with('#')).collect()
}

pub(crate) fn lines_before_tests(file: &syn::File) -> Option<usize> {
    let tests = file.items.iter().filter_map(|item| match item {
        Item::Mod(item) => item.attrs.iter().find(|attribute| is_test(attribute)),
        _ => None,
    });
    tests.map(|attribute| attribute.span().start().line - 1).next()
}

pub(crate) fn is_test(attribute: &Attribute) -> bool {
    let text = quote::quote!(#attribute).to_string().replace(' ', "");
    ["#[cfg(test)]", "#[test]"].contains(&text.as_str()) || text.starts_with("#[tokio::test")
}

pub(crate) struct Reader {
    layer: &'static Layer,
    module: Vec<String>,
    dependencies: BTreeSet<String>,
    faults: Vec<String>,
}

impl Reader {
    /// A path that is named; `*` at its end brings in all that is below.
    fn check_path(&mut self, path: &[String]) {
        let path = self.resolve(path);
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        let [first, rest @ ..] = &path[..] else { return };
        let (list, rest) = match *first {
            "crate" | "fifogate" if rest.first() == Some(&own_layer(self.layer.name)) => return,
            "crate" | "fifogate" => (self.layer.layers, rest),
            "std" | "core" | "alloc" if rest == ["*"] || begins(WORLD, rest) => {
                (self.layer.std, rest)
            }
            name if self.dependencies.contains(name) => (self.layer.crates, &path[..]),
            _ => return,
        };
        if !begins(list, rest) {
            self.faults.push(format!("names {}", path.join("::")));
        }
    }

    /// A path from the crate's root, where it began with `self` or `super`.
    fn resolve(&self, path: &[String]) -> Vec<String> {
        let ups = path.iter().take_while(|name| ["self", "super"].contains(&name.as_str()));
        let steps = ups.clone().count();
        if steps == 0 {
            return path.to_vec();
        }
        let depth = self.module.len().saturating_sub(ups.filter(|name| *name == "super").count());
        let root = std::iter::once("crate".to_owned());
        root.chain(self.module[..depth].to_vec()).chain(path[steps..].to_vec()).collect()
    }

    /// Tokens that syn does not parse: paths are found there all the same, and calls that may panic.
    fn check_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut between = String::new();
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if between == "." => self.check_call(&ident.to_string()),
                TokenTree::Ident(ident) => {
                    if between != "::" {
                        self.check_several(&std::mem::take(&mut path));
                    }
                    path.push(ident.to_string());
                }
                TokenTree::Punct(punct) => {
                    between.push(punct.as_char());
                    continue;
                }
                TokenTree::Group(group) => self.check_tokens(group.stream()),
                TokenTree::Literal(_) => {}
            }
            between.clear();
        }
        self.check_several(&path);
    }

    /// A path within code. One name alone is that of a variable, or of something that was imported.
    fn check_several(&mut self, path: &[String]) {
        if path.len() > 1 {
            self.check_path(path);
            self.check_call(&path[path.len() - 1]);
        }
    }

    fn check_call(&mut self, name: &str) {
        if ["unwrap", "expect"].contains(&name) {
            self.faults.push(format!("calls {name}"));
        }
    }

    fn check_length(&mut self, signature: &Signature, body: &Block) {
        let lines = body.span().end().line + 1 - signature.span().start().line;
        if lines > LONGEST_FUNCTION {
            self.faults.push(format!("has {} of {lines} lines", signature.ident));
        }
    }
}

/// The top of `src/` that a layer belongs to: a layer may name all of itself.
pub(crate) fn own_layer(name: &str) -> &str {
    name.split('/').next().unwrap()
}

/// Whether `path` is one of `list`, or lies below one.
pub(crate) fn begins(list: &[&str], path: &[&str]) -> bool {
    list.iter().any(|entry| {
        let entry: Vec<_> = entry.split("::").collect();
        path.starts_with(&entry)
    })
}

pub(crate) fn flatten(prefix: &[String], tree: &UseTree, paths: &mut Vec<Vec<String>>) {
    let with = |name: &dyn ToString| [prefix, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(path) => flatten(&with(&path.ident), &path.tree, paths),
        UseTree::Name(name) if name.ident == "self" => paths.push(prefix.to_vec()),
        UseTree::Name(name) => paths.push(with(&name.ident)),
        UseTree::Rename(name) if name.ident == "self" => paths.push(prefix.to_vec()),
        UseTree::Rename(name) => paths.push(with(&name.ident)),
        UseTree::Glob(_) => paths.push(with(&"*")),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(prefix, tree, paths)),
    }
}

pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if attributes(item).iter().any(is_test) {
            return;
        }
        match item {
            Item::Use(item) => {
                let mut paths = Vec::new();
                flatten(&[], &item.tree, &mut paths);
                paths.iter().for_each(|path| self.check_path(path));
            }
            Item::ExternCrate(item) => self.check_path(&[item.ident.to_string()]),
            Item::Mod(inner) => {
                self.module.push(inner.ident.to_string());
                visit::visit_item(self, item);
                self.module.pop();
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        self.check_several(&names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.check_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.check_tokens(list.tokens.clone());
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.check_length(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        if function.attrs.iter().any(is_test) {
            return;
        }
        self.check_length(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(body) = &function.default {
            self.check_length(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.check_call(&call.method.to_string());
        visit::visit_expr_method_call(self, call);
    }
}
