"""The linear program over all masked states, solved and certified."""
