module kinema.example/echo

go 1.24
