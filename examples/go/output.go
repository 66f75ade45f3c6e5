package main

import (
	"errors"
	"fmt"
	"os"
)

// Output is a file that has another name until it is whole: an error leaves no half of it behind, and
// nothing that was there is lost.
type Output struct {
	*os.File
	path string
}

// CreateOutput creates what becomes the file path.
func CreateOutput(path string) (*Output, error) {
	name := path
	// A device or a pipe has to be written to itself.
	if info, err := os.Stat(path); err != nil || info.Mode().IsRegular() {
		name = fmt.Sprintf("%s.%d.part", path, os.Getpid())
	}
	file, err := os.Create(name)
	return &Output{file, path}, err
}

// Commit closes the file, and gives it its name.
func (o *Output) Commit() error {
	err := o.Close()
	if err == nil && o.Name() != o.path {
		err = os.Rename(o.Name(), o.path)
	}
	return err
}

// Discard removes what was not committed.
func (o *Output) Discard() {
	if err := o.Close(); !errors.Is(err, os.ErrClosed) && o.Name() != o.path {
		os.Remove(o.Name())
	}
}
