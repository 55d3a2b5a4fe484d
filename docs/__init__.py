"""What keeps these pages true: pictures, shown outputs and counted sizes, each renewed by a script."""
