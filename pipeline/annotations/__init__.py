"""What people hold beside their images: captions and given labels, in files of an image's own or in lists."""
