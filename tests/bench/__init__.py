"""Every bar measured, and the browser that tries the course: `make bench`."""
