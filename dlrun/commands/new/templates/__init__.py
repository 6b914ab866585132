"""What `dlrun new` writes, a module and a yaml each, with `my_part` and `MyPart` for the name that is given."""
