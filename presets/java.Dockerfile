# Debian's OpenJDK, an LTS release, and Maven.
ARG BASE_IMAGE
FROM $BASE_IMAGE
USER root
RUN apt-get update --error-on=any \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends maven openjdk-17-jdk-headless \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# The host of Maven's central repository, as Maven's super POM has it: it is written nowhere else.
RUN mkdir -p /usr/local/share/claude-bottle \
 && python3 -c 'import glob, zipfile; [jar] = glob.glob("/usr/share/maven/lib/maven-model-builder-3.*.jar"); \
      print(zipfile.ZipFile(jar).read("org/apache/maven/model/pom-4.0.0.xml").decode())' > /tmp/pom \
 && sed -n 's|.*<url>\(.*\)</url>.*|maven \1|p' /tmp/pom | sort -u >> /usr/local/share/claude-bottle/registries \
 && rm -rf /tmp/*
USER agent
