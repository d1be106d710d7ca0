"""Whether an answer in XML is what botocore's model says."""


def local(element):
    """An element's name without its namespace."""
    return element.tag.rsplit("}", 1)[-1]


def compare(shape, element, path, wrong):
    """Adds to `wrong` what of an element the model has otherwise."""
    if shape.type_name == "structure":
        members = {m.serialization.get("name", name): (name, m) for name, m in shape.members.items()}
        found = [local(below) for below in element]
        for name in shape.required_members:
            if name not in {members[word][0] for word in found if word in members}:
                wrong.append(f"{path}: {name} is required")
        for below in element:
            if local(below) in ("requestId", "RequestId"):
                continue
            if local(below) not in members:
                wrong.append(f"{path}: there is no {local(below)}")
            else:
                compare(members[local(below)][1], below, f"{path}.{local(below)}", wrong)
    elif shape.type_name == "list":
        for below in element:
            if local(below) != shape.member.serialization.get("name", "member"):
                wrong.append(f"{path}: an element is called {local(below)}")
            compare(shape.member, below, f"{path}[]", wrong)
    else:
        text = element.text or ""
        right = {
            "boolean": lambda: text in ("true", "false"),
            "integer": lambda: int(text) is not None,
            "long": lambda: int(text) is not None,
            "double": lambda: float(text) is not None,
            "timestamp": lambda: text.endswith("Z") and text[10] == "T",
        }.get(shape.type_name, lambda: True)
        try:
            fine = right()
        except (ValueError, IndexError):
            fine = False
        if not fine:
            wrong.append(f"{path}: {text!r} is no {shape.type_name}")
        if getattr(shape, "enum", None) and text not in shape.enum and shape.name not in ("InstanceType",):
            wrong.append(f"{path}: {text!r} is not in {shape.name}")
