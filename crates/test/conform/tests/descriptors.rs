//! Our message definitions against etcd's: the same messages, fields, numbers, types and labels.

use std::collections::BTreeMap;
use std::process::Command;

use conform::oracle;
use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

/// One line per field, enum value and method, by its full name.
fn shape(set: &FileDescriptorSet) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for file in &set.file {
        let package = file.package();
        for message in &file.message_type {
            of_message(package, message, &mut lines);
        }
        for numbers in &file.enum_type {
            of_enum(package, numbers, &mut lines);
        }
        for service in &file.service {
            for method in &service.method {
                let name = format!("{package}.{}/{}", service.name(), method.name());
                let streams = (method.client_streaming(), method.server_streaming());
                let line = format!("{} {} {streams:?}", method.input_type(), method.output_type());
                lines.insert(name, line);
            }
        }
    }
    lines
}

fn of_message(scope: &str, message: &DescriptorProto, lines: &mut BTreeMap<String, String>) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(name.clone(), "message".to_owned());
    for field in &message.field {
        let one_of = field.oneof_index.filter(|_| !field.proto3_optional());
        let one_of = one_of.map(|at| message.oneof_decl[at as usize].name().to_owned());
        let line = format!(
            "{} {:?} {:?} {} {one_of:?}",
            field.number(),
            field.r#type(),
            field.label(),
            field.type_name()
        );
        lines.insert(format!("{name}.{}", field.name()), line);
    }
    for nested in &message.nested_type {
        of_message(&name, nested, lines);
    }
    for numbers in &message.enum_type {
        of_enum(&name, numbers, lines);
    }
}

fn of_enum(scope: &str, numbers: &EnumDescriptorProto, lines: &mut BTreeMap<String, String>) {
    for value in &numbers.value {
        let name = format!("{scope}.{}.{}", numbers.name(), value.name());
        lines.insert(name, format!("= {}", value.number()));
    }
}

#[test]
fn messages_are_those_that_etcd_registers() {
    let Some(program) = oracle("descriptors/descriptors") else { return };
    let output = Command::new(program).output().expect("the program runs");
    assert!(output.status.success());
    let theirs = FileDescriptorSet::decode(&output.stdout[..]).expect("a descriptor set");
    let ours = FileDescriptorSet::decode(api::DESCRIPTORS).expect("written by our own build");
    let (ours, theirs) = (shape(&ours), shape(&theirs));
    // Theirs also holds what etcd imports and never sends: annotations, the gateway's options.
    let foreign = ["google.", "versionpb.", "grpc.gateway.", "grpc.binarylog.", "pb."];
    let differences: Vec<_> = ours
        .keys()
        .chain(theirs.keys().filter(|name| !foreign.iter().any(|f| name.starts_with(f))))
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| format!("{name}: ours {:?}, etcd's {:?}", ours.get(name), theirs.get(name)))
        .collect();
    assert!(differences.is_empty(), "{differences:#?}");
    assert!(ours.len() > 500, "only {} names were compared", ours.len());
}
