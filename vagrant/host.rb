# What the Vagrantfile asks of this host: settings from the environment, the box, a free port. docs/vm.md has the variables.
require "json"
require "shellwords"
require "socket"

module Lab
  ROOT = File.expand_path("..", __dir__)
  STORE = ENV.fetch("LAB_BOX_DIR", "/var/lib/labkit/box")
  GUEST = "/opt/labkit"
  PROXY = %w[http_proxy https_proxy no_proxy].freeze
  # What it is told, as files: what is gone on the host is gone there, too.
  TAKE_OVER = <<~SHELL
    set -eu
    install -d -m 755 /etc/labkit
    keep() { if [ -n "$2" ]; then printf %s "$2" > "$1"; else rm -f "$1"; fi; }
    keep /etc/labkit/host-ca.pem "$1"
    keep /etc/labkit/host.env "$2"
  SHELL

  # One line, and nothing is changed.
  class Refusal < Vagrant::Errors::VagrantError
    def initialize(line)
      @line = line
      super()
    end

    def error_message
      @line
    end
  end

  module_function

  def setting(name, default)
    value = ENV[name].to_s
    value.empty? ? default : value
  end

  def number(name, default, least)
    value = setting(name, default.to_s)
    raise Refusal, "#{name}=#{value} is no number; remedy: #{name}=#{default}" unless value.match?(/\A\d+\z/)
    raise Refusal, "#{name}=#{value} is too small; remedy: at least #{least}" if value.to_i < least

    value.to_i
  end

  def box
    setting("LAB_BOX", "labkit")
  end

  # Where Vagrant finds our box: the catalogue of a web space, or of the box that was built here.
  def catalogue
    setting("LAB_BOX_URL", File.join(STORE, "current", "metadata.json"))
  end

  def local?
    !catalogue.include?("://") || catalogue.start_with?("file://")
  end

  def catalogue_path
    catalogue.delete_prefix("file://")
  end

  # Why a machine cannot be made of our box, or nil.
  def refusal(machine)
    return nil if machine.id || box != "labkit" || !local? || File.exist?(catalogue_path)

    "there is no box at #{catalogue_path}; remedy: `sudo make vm` builds it on Debian, or set LAB_BOX_URL to the metadata.json of a web space"
  end

  def version
    JSON.parse(File.read(catalogue_path)).fetch("versions").first.fetch("version")
  rescue JSON::ParserError, KeyError, NoMethodError
    raise Refusal, "#{catalogue_path} is no catalogue of a box; remedy: remove it, `sudo make vm` builds the box anew"
  end

  # vagrant-libvirt takes the port as it stands, so a taken one is passed over here; the one that the machine has, it keeps.
  def port(dotfiles)
    wanted = number("LAB_PORT", 8888, 1)
    mine = Dir[File.join(dotfiles, "machines/lab/libvirt/pids/ssh_*.pid")].map { |file| file[/ssh_(\d+)\.pid/, 1].to_i }.first
    mine || (wanted..[wanted + 100, 65_535].min).find { |number| free?(number) } || wanted
  end

  def free?(number)
    TCPServer.new("127.0.0.1", number).close
    true
  rescue SystemCallError
    false
  end

  # kvm where a kernel really boots in it, else tcg: software emulation.
  def accelerator
    @accelerator ||= `#{[File.join(ROOT, "vagrant/accelerator.sh"), STORE].shelljoin}`.strip
  end

  # The certificate authorities of this host's bundle that its distribution does not have, so mostly a company's, as one text.
  def authorities
    file = [ENV["LAB_CA_BUNDLE"], ENV["SSL_CERT_FILE"], ENV["REQUESTS_CA_BUNDLE"]].find { |name| !name.to_s.empty? }
    return "" unless file
    raise Refusal, "the CA bundle #{file} is not there; remedy: set LAB_CA_BUNDLE to a file of certificates" unless File.file?(file)

    known = Dir["/usr/share/ca-certificates/mozilla/*.crt"].flat_map { |path| certificates(path) }
    (certificates(file) - known).uniq.map { |pem| "#{pem}\n" }.join
  end

  def certificates(path)
    File.read(path, encoding: "BINARY").gsub("\r", "").scan(/-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----/m)
  end

  # A proxy that runs on the host itself is not at 127.0.0.1 for the machine: say so rather than hand over an address that leads nowhere.
  def proxy
    lines = PROXY.map { |name| [name, ENV[name] || ENV[name.upcase]] }.reject { |_, value| value.to_s.empty? }.to_h
    return "" if lines.empty?

    lines["no_proxy"] = [lines["no_proxy"], "127.0.0.1", "localhost"].compact.join(",")
    lines.flat_map { |name, value| ["#{name}=#{value}", "#{name.upcase}=#{value}"] }.join("\n") + "\n"
  end

  def url(machine)
    out = +""
    machine.communicate.sudo("#{GUEST}/.venv/bin/labkit url") { |kind, data| out << data if kind == :stdout }
    host = machine.config.vm.networks.find { |kind, options| kind == :forwarded_port && options[:id] == "jupyter" }[1][:host]
    out.strip.sub(":8888/", ":#{host}/")
  end
end
